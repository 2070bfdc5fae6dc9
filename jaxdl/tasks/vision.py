"""Vision: flags and data of images, and the image classification task.

Shapes: B images of S by T pixels with C channels, K classes, L latents.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdl import augment, losses
from jaxdl.config import RunConfig, absolute, flag, on_bad_example
from jaxdl.data import images
from jaxdl.data.batches import Dataset
from jaxdl.data.pixels import Size
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.nn.norm import NORMS, Norm, cross_device_batch
from jaxdl.task import Batch, Key, Task
from jaxdl.tasks import targets
from jaxdl.tasks.adversarial_training import AdversarialTrainingConfig, attack
from jaxdl.tasks.classification import (
    ClassificationConfig,
    classification_from_config,
    with_classes,
)
from jaxdl.tasks.supervised import Model, accuracy_and_confusion, accuracy_metrics


@dataclasses.dataclass(frozen=True)
class ImageConfig(RunConfig):
    """Image data."""

    dataset: str = flag(
        "embedded",
        "TFDS name, embedded (digits), digits, synthetic, or a folder /PATH or ./PATH with "
        "train/CLASS/*.jpg (or png, webp, bmp, gif, tif), test/ and optionally val/, with a "
        "labels.csv or of parquet files, or a file ./PATH.npz of arrays",
    )
    image_size: int = flag(32, "pixels per side; other images are resized", low=8, high=1024)
    image_height: int = flag(0, "height in pixels of images that are not square", low=0, high=1024)
    image_width: int = flag(0, "width in pixels of images that are not square", low=0, high=1024)
    validation_fraction: float = flag(
        0.1,
        "fraction of the training images, per class, for validation; unused if there is val/",
        low=0.0,
        high=1.0,
    )
    test_fraction: float = flag(
        0.2,
        "fraction of images of one's own, per class, for the test; unused if there are test images",
        low=0.0,
        high=1.0,
    )
    on_bad_example: str = on_bad_example()

    def __post_init__(self) -> None:
        """Makes a folder of images absolute, as a run may be opened from another folder."""
        super().__post_init__()
        if images.is_folder(self.dataset):
            object.__setattr__(self, "dataset", absolute(self.dataset, "dataset"))

    def validate(self) -> None:
        """Checks the size of images that are not square.

        Raises:
          UserError: only one of --image_height and --image_width, or one that is too small.
        """
        super().validate()
        if (self.image_height > 0) != (self.image_width > 0):
            raise UserError(
                f"--image_height={self.image_height} with --image_width={self.image_width}: give "
                "both, or --image_size for squares"
            )
        limits = next(f for f in dataclasses.fields(self) if f.name == "image_size").metadata
        if self.image_height and min(self.image_height, self.image_width) < limits["low"]:
            raise UserError(
                f"--image_height={self.image_height} --image_width={self.image_width}: give at "
                f"least {limits['low']} each"
            )


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(ImageConfig, ClassificationConfig, AdversarialTrainingConfig):
    """Image classification: augmentation and loss."""

    loss: str = flag("cross_entropy", "loss of the logits", choices=tuple(losses.CLASSIFICATION))
    label_smoothing: float = flag(
        0.0,
        "probability of each label that is spread over all classes, also in logged losses",
        low=0.0,
        high=1.0,
    )
    crop_padding: int = flag(0, "padding of random crops, pixels", low=0, high=512)
    flip: bool = flag(False, "mirror half of the images, if that keeps their classes")
    cutout: int = flag(0, "side of the erased square, pixels", low=0, high=1024)
    noise: float = flag(
        0.0,
        "standard deviation of Gaussian pixel noise, in levels of 0 to 255",
        low=0.0,
        high=255.0,
    )
    mixup: float = flag(0.0, "alpha of the mixing weight; 0: no mixup", low=0.0, high=100.0)
    stream: bool = flag(False, "read and decode images while training, for data beyond memory")
    crop_area: float = flag(
        1.0, "smallest area of a random crop, as a fraction; with --stream", low=0.01, high=1.0
    )
    workers: int = flag(
        0, "reader processes with --stream; 0: one per CPU", low=0, high=4096, runtime=True
    )

    def validate(self) -> None:
        """Refuses flags without effect.

        Raises:
          UserError: --crop_area without --stream.
        """
        super().validate()
        if self.crop_area < 1 and not self.stream:
            raise UserError(
                f"--crop_area={self.crop_area} has no effect without --stream, which reads images "
                "at their original size: give both"
            )


@dataclasses.dataclass(frozen=True)
class NormalizedConfig(ClassifierConfig):
    """Normalisation layers."""

    norm: str = flag("batch", "normalisation of the hidden layers", choices=tuple(NORMS))
    sync_batch_norm: bool = flag(
        False,
        "batch statistics over the examples of all devices with --parallel=pmap, as with "
        "--parallel=jit",
    )

    def validate(self) -> None:
        """Refuses flags without effect.

        Raises:
          UserError: --sync_batch_norm without batch normalisation or without --parallel=pmap.
        """
        super().validate()
        if self.sync_batch_norm and (self.norm, self.parallel) != ("batch", "pmap"):
            raise UserError(
                f"--sync_batch_norm with --norm={self.norm} --parallel={self.parallel}: it needs "
                "--norm=batch and --parallel=pmap; leave it out"
            )


def norm(config: NormalizedConfig) -> Norm:
    """Returns the constructor of the normalisation layer."""
    return cross_device_batch if config.sync_batch_norm else NORMS[config.norm]


def load(config: ImageConfig) -> Dataset:
    """Loads the data set of --dataset; embedded is scikit-learn's digits."""
    options: dict[str, Any] = {}
    if isinstance(config, ClassifierConfig) and config.stream:
        options = {"stream": True, "workers": config.workers, "smallest": config.crop_area}
    data = images.load(
        config.dataset,
        embedded="digits",
        data_dir=config.data_dir,
        image_size=image_size(config),
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        on_bad_example=config.on_bad_example,
        **options,
    )
    if isinstance(config, ClassifierConfig):
        return with_classes(config, data)
    targets.check_classes(data.spec)
    return data


def image_size(config: ImageConfig) -> Size:
    """Side of square images, or their height and width."""
    return (config.image_height, config.image_width) if config.image_height else config.image_size


def best(spec: DataSpec) -> tuple[str, Callable[..., Any]]:
    """Metric of the best checkpoint, and its direction: accuracy, or the loss of numbers."""
    return ("loss", min) if targets.kind(spec) == "numbers" else ("accuracy", max)


def latents(index: jax.Array, size: int, draw: jax.Array | int = 0) -> jax.Array:
    """Standard normal latents that are fixed for each example.

    Args:
      index: integers [B], such as the rows of examples in their split.
      size: number of latents L.
      draw: number of the sample; each gives other latents for the same index.

    Returns:
      Latents [B, L], a function of (index, draw) only.
    """
    key = jax.random.fold_in(jax.random.key(0), draw)
    return jax.vmap(lambda n: jax.random.normal(jax.random.fold_in(key, n), (size,)))(index)


def classify(config: ClassifierConfig, model: Model, spec: DataSpec) -> Task:
    """Builds the image classification task, or that of other labels; see `targets`.

    In training, images are augmented by crops, flips, cutout, noise and mixup, and then attacked.
    As in evaluation, each channel is then normalised to mean 0 and standard deviation 1.

    Args:
      config: the run's config.
      model: images [B, S, T, C] -> `DataSpec.num_outputs` outputs, such as logits [B, K].
      spec: description of the data.

    Returns:
      A task whose outputs are logits [B, K] of classes or of independent labels, or numbers [B].

    Raises:
      UserError: an array is missing, or a flag does not fit the classes; in `step` and `evaluate`:
        the number of the model's outputs is not K.
    """
    mean, std = _statistics(spec)

    def loss(logits: jax.Array, batch: Batch) -> jax.Array:
        if logits.shape[-1] != spec.num_classes:
            raise UserError(
                f"the model has {logits.shape[-1]} outputs for {spec.num_classes} classes: give it "
                "spec.num_classes outputs"
            )
        targets = losses.smooth_labels(batch["label"], spec.num_classes, config.label_smoothing)
        return losses.CLASSIFICATION[config.loss](logits, targets)

    def preprocess(batch: Batch) -> Batch:
        return batch | {"image": augment.normalize(batch["image"], mean, std)}

    def augment_batch(key: Key, batch: Batch) -> Batch:
        crop_key, flip_key, cutout_key, noise_key, mixup_key = jax.random.split(key, 5)
        image, label = batch["image"], batch["label"]
        image = augment.random_crop(crop_key, image, config.crop_padding)
        if config.flip and spec.mirrored:
            image = augment.random_flip(flip_key, image)
        image = augment.cutout(cutout_key, image, config.cutout, mean)
        image = augment.noise(noise_key, image, config.noise)
        image, label = augment.mixup(mixup_key, image, label, spec.num_classes, config.mixup)
        return batch | {"image": image, "label": label}

    options: dict[str, Any] = {
        "loss": loss,
        "metrics_fn": accuracy_and_confusion,
        "train_metrics_fn": accuracy_metrics,
        "kind": "logits",
    }
    if targets.kind(spec) != "classes":
        options = targets.options(spec, config.loss, config.label_smoothing)
    return classification_from_config(
        config,
        model,
        spec,
        **options,
        preprocess=preprocess,
        augment=augment_batch,
        attack=attack(config),
    )


def _statistics(spec: DataSpec) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the images, after a check that there are images and labels.

    Raises:
      UserError: the data have no `image` or `label`.
    """
    for name in ("image", "label"):
        spec.shape(name)
    return spec.statistics()
