"""Images, as several experiments have them: flags and data; and what classifies them.

Shapes: B images of S by S pixels with C channels, of K classes; L latent numbers.
"""

import dataclasses
from typing import Any

import jax

from jaxdl import augment, losses, metrics
from jaxdl.config import RunConfig, absolute, flag
from jaxdl.data import images
from jaxdl.data.batches import Dataset
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.nn.norm import NORMS, Norm, batch_of_all
from jaxdl.task import Batch, Key, Task
from jaxdl.tasks.supervised import Model, classification
from jaxdl.tasks.supervised_config import SupervisedConfig, supervised_from_config


@dataclasses.dataclass(frozen=True)
class ImageConfig(RunConfig):
    """Everything that learns from images."""

    dataset: str = flag(
        "embedded",
        "of TFDS, or embedded (digits), digits, synthetic, or a folder, /PATH or ./PATH, of "
        "train/CLASS/*.jpg (or png, webp, bmp, gif, tif), test/ and perhaps val/",
    )
    image_size: int = flag(32, "pixels a side; other images are resized", low=8, high=1024)
    validation_fraction: float = flag(
        0.1,
        "of the training images, and of each class; none where there is val/",
        low=0.0,
        high=1.0,
    )

    def __post_init__(self) -> None:
        """Makes a folder of images absolute: a run is opened again from other folders."""
        super().__post_init__()
        if images.is_folder(self.dataset):
            object.__setattr__(self, "dataset", absolute(self.dataset, "dataset"))


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(ImageConfig, SupervisedConfig):
    """Images, their augmentation, and the loss."""

    loss: str = flag("cross_entropy", "of the logits", choices=tuple(losses.CLASSIFICATION))
    label_smoothing: float = flag(
        0.0, "share spread over all classes, in the losses that are logged too", low=0.0, high=1.0
    )
    crop_padding: int = flag(0, "pixels that a crop may shift", low=0, high=512)
    flip: bool = flag(False, "mirror half of the images, where classes allow it")
    cutout: int = flag(0, "side of the erased square, pixels", low=0, high=1024)
    noise: float = flag(
        0.0,
        "deviation of what is added to pixels of 0 to 255, in whole levels",
        low=0.0,
        high=255.0,
    )
    mixup: float = flag(0.0, "alpha of the mixing weight; 0: none", low=0.0, high=100.0)
    stream: bool = flag(False, "read and decode while training, for images that no memory holds")
    crop_area: float = flag(
        1.0, "with --stream: part of an image that a random crop has at least", low=0.01, high=1.0
    )
    workers: int = flag(
        0, "with --stream: processes that read; 0: one a processor", low=0, high=4096, runtime=True
    )

    def validate(self) -> None:
        """Refuses what has no effect.

        Raises:
          UserError: --crop_area of images that are not streamed.
        """
        super().validate()
        if self.crop_area < 1 and not self.stream:
            raise UserError(
                f"--crop_area={self.crop_area} without --stream, which alone sees images at their "
                "own size: give both"
            )


@dataclasses.dataclass(frozen=True)
class NormalizedConfig(ClassifierConfig):
    """Normalisation."""

    norm: str = flag("batch", "of the hidden layers", choices=tuple(NORMS))
    sync_batch_norm: bool = flag(
        False, "with --parallel=pmap: over all devices' examples, as --parallel=jit has it"
    )

    def validate(self) -> None:
        """Refuses what has no effect.

        Raises:
          UserError: --sync_batch_norm where there is nothing to synchronise.
        """
        super().validate()
        if self.sync_batch_norm and (self.norm, self.parallel) != ("batch", "pmap"):
            raise UserError(
                f"--sync_batch_norm with --norm={self.norm} --parallel={self.parallel}: it is of "
                "--norm=batch and --parallel=pmap, leave it out"
            )


def norm(config: NormalizedConfig) -> Norm:
    """The layer that the flags describe."""
    return batch_of_all if config.sync_batch_norm else NORMS[config.norm]


def load(config: ImageConfig) -> Dataset:
    """The data set that --dataset names; embedded is scikit-learn's digits."""
    streamed: dict[str, Any] = {}
    if isinstance(config, ClassifierConfig) and config.stream:
        streamed = {"stream": True, "workers": config.workers, "smallest": config.crop_area}
    return images.load(
        config.dataset,
        embedded="digits",
        data_dir=config.data_dir,
        image_size=config.image_size,
        validation_fraction=config.validation_fraction,
        **streamed,
    )


def latents(numbers: jax.Array, size: int, draw: jax.Array | int = 0) -> jax.Array:
    """The standard normal latents that always go with numbers [B]: [B, L]; others for each draw."""
    key = jax.random.fold_in(jax.random.key(0), draw)
    return jax.vmap(lambda n: jax.random.normal(jax.random.fold_in(key, n), (size,)))(numbers)


def classify(config: ClassifierConfig, model: Model, spec: DataSpec) -> Task:
    """The task of fitting a model [B, S, S, C] -> logits [B, K] to the labels of images.

    Training crops, flips, erases, adds noise and mixes, as the flags say; then, as in evaluation,
    each channel is given zero mean and unit deviation over the training split.

    Raises:
      UserError: in `step` and `evaluate`: the model has not one output for each class.
    """
    mean, std = spec.statistics()

    def loss(logits: jax.Array, batch: Batch) -> jax.Array:
        if logits.shape[-1] != spec.num_classes:
            raise UserError(
                f"the model has {logits.shape[-1]} outputs for {spec.num_classes} classes: give it "
                "as many as spec.num_classes"
            )
        targets = losses.smooth(batch["label"], spec.num_classes, config.label_smoothing)
        return losses.CLASSIFICATION[config.loss](logits, targets)

    def preprocess(batch: Batch) -> Batch:
        return batch | {"image": augment.normalize(batch["image"], mean, std)}

    def distort(key: Key, batch: Batch) -> Batch:
        crop, flip, cut, noise, mix = jax.random.split(key, 5)
        image = augment.random_crop(crop, batch["image"], config.crop_padding)
        if config.flip and spec.mirrored:
            image = augment.random_flip(flip, image)
        image = augment.cutout(cut, image, config.cutout, mean)
        image = augment.noise(noise, image, config.noise)
        image, label = augment.mixup(mix, image, batch["label"], spec.num_classes, config.mixup)
        return batch | {"image": image, "label": label}

    return supervised_from_config(
        config,
        model,
        spec,
        loss=loss,
        metrics_fn=metrics_fn,
        train_metrics_fn=classification,
        preprocess=preprocess,
        augment=distort,
    )


def metrics_fn(logits: jax.Array, batch: Batch) -> metrics.Metrics:
    """Accuracy and confusion matrix of logits [B, K], for `supervised`'s evaluation."""
    confusion = metrics.confusion(logits, batch["label"], batch["mask"])
    return classification(logits, batch) | {"confusion": confusion}
