"""Image-classification data sets, in memory or streamed: TFDS, folders, `digits`, `synthetic`.

Shapes: N images of S by S pixels with C channels, of K classes.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.config import absolute
from jaxdl.console import say
from jaxdl.data import image_sources, pixels
from jaxdl.data.batches import Dataset, Split, split_validation, stratified_fingerprint
from jaxdl.data.describe import describe
from jaxdl.data.image_sources import Raw
from jaxdl.data.records import Records, Source
from jaxdl.errors import UserError

# Data sets whose classes may change when mirrored: letters, digits. Others keep their labels.
ONE_WAY = frozenset(
    "digits mnist emnist kmnist svhn_cropped omniglot cmaterdb synthetic".split()  # noqa: SIM905
)
SAMPLE = 10_000  # number of images that statistics are computed from if not all are in memory


def dataset(name: str, raw: Raw) -> Dataset:
    """Makes a data set of images.

    Args:
      name: name of the data set.
      raw: images of three splits, all of one size.

    Returns:
      The data set, with splits {"image": uint8 [N, S, S, C], "label": int32 [N]}.

    Raises:
      UserError: a label is out of range.
    """
    assert raw.validation is not None
    splits = {"train": raw.train, "validation": raw.validation, "test": raw.test}
    for split, arrays in splits.items():
        _check_labels(arrays["label"], raw.num_classes, f"{name} ({split})")
    mean, std = statistics(raw.train["image"])
    spec = describe(
        raw.train,
        name=name,
        version=raw.version,
        fingerprint=raw.fingerprint,
        source=raw.source,
        num_classes=raw.num_classes,
        classes=raw.classes,
        mirrored=re.split("[/:]", name)[0] not in ONE_WAY,
        constants={"mean": mean, "std": std},
    )
    return Dataset(spec, **splits)


def statistics(images: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, in levels of 0 to 255.

    For images that are not in memory, SAMPLE images at even distances are used.

    Args:
      images: uint8 [N, S, S, C], an array or a column that is not in memory.

    Returns:
      Mean and standard deviation, float32 [C] each.
    """
    if not isinstance(images, np.ndarray):
        rows = np.linspace(0, len(images) - 1, min(len(images), SAMPLE)).round()
        images = images[rows.astype(np.int64)]
    counts = np.stack(
        [np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])]
    )
    levels, total = np.arange(256.0), counts.sum(1)
    mean = counts @ levels / total
    std = np.sqrt(np.maximum(counts @ levels**2 / total - mean**2, 1e-12))
    return mean.astype(np.float32), std.astype(np.float32)


def _check_labels(labels: Any, num_classes: int, where: str) -> None:
    """Checks labels that are in memory against the number of classes.

    Raises:
      UserError: a label is out of range.
    """
    if not isinstance(labels, np.ndarray):
        return
    low, high = np.min(labels), np.max(labels)
    if low < 0 or high >= num_classes:
        raise UserError(
            f"labels of {where} range from {low} to {high}, but there are {num_classes} classes: "
            "labels must start at 0 and be less than the number of classes"
        )


def load(
    name: str,
    *,
    embedded: str = "digits",
    data_dir: str = "",
    image_size: int = 32,
    validation_fraction: float = 0.1,
    stream: bool = False,
    workers: int = 0,
    smallest: float = 1.0,
) -> Dataset:
    """Loads a data set and splits a validation split off its training split.

    Args:
      name: `embedded`, `digits`, `synthetic`, an image-classification data set of TFDS, or the
        path of an image folder (see `is_folder`) with train/CLASS/*.jpg and test/CLASS/*.jpg.
      embedded: data set that `embedded` stands for.
      data_dir: TFDS folder; empty: TFDS's default folder.
      image_size: S; images of another size are resized by bilinear interpolation.
      validation_fraction: fraction of the training images to hold out, stratified by class. It is
        the same split for every seed, so that runs can be compared. Ignored if the source has a
        validation split.
      stream: True to read images on demand, instead of into memory.
      workers: number of processes that read streamed images; 0: one for each processor.
      smallest: smallest fraction of a streamed image's area that a random crop for training keeps;
        1: no crops.

    Returns:
      The data set; see `dataset`.

    Raises:
      UserError: there is no such data set; it is absent, damaged or too small; or it is to be
        streamed and has no files, or Grain is not installed.
    """
    name = embedded if name == "embedded" else name
    if stream:
        return _streamed(name, data_dir, image_size, validation_fraction, workers, smallest)
    if name == "digits":
        raw = image_sources.digits()
    elif name == "synthetic":
        raw = image_sources.synthetic(image_size)
    elif is_folder(name):
        raw = image_sources.from_folder(name, image_size)
    else:
        raw = image_sources.from_tfds(name, data_dir, image_size)
    train, test = _resized(raw.train, image_size), _resized(raw.test, image_size)
    validation, fingerprint = raw.validation, raw.fingerprint
    if validation is None:
        train, validation = split_validation(train, validation_fraction, train["label"])
        fingerprint = stratified_fingerprint(fingerprint)
    return dataset(
        name,
        raw._replace(train=train, validation=validation, test=test, fingerprint=fingerprint),
    )


def _streamed(
    name: str, data_dir: str, image_size: int, fraction: float, workers: int, smallest: float
) -> Dataset:
    """Opens a data set whose images are read on demand; arguments as of `load`."""
    from jaxdl.data import pipeline, prepare
    from jaxdl.data.folder import ImageFolder

    pipeline.check()
    if is_folder(name):
        folder = ImageFolder(Path(absolute(name, "dataset")))
        fingerprint, num_classes = folder.fingerprint(), len(folder.classes)
        version, classes = "1", folder.classes
        description = image_sources.describe_folder(folder)
        sources: list[Source] = [folder.source(split) for split in folder.splits]
        labels, notice = sources[0].labels(), folder.left_out()
    elif name in ("digits", "synthetic"):
        raise UserError(
            f"--stream with --dataset={name}, which has no files to stream: leave out --stream"
        )
    else:
        stored = prepare.open_or_prepare(name, data_dir, ("image", "label"))
        version, classes = stored.version, stored.classes
        description = f"TFDS, {stored.folder}"
        fingerprint, num_classes = stored.fingerprint(), stored.num_classes
        sources = [stored.source(split) for split in image_sources.used_splits(stored)]
        labels, notice = image_sources.labels(stored, fingerprint, sources[0]), ""
    channels = sources[0].read(0)[0].shape[-1]
    if notice:
        say(notice)
    workers = workers or len(os.sched_getaffinity(0))
    splits: list[Split] = [
        Records(source, np.arange(len(source)), image_size, channels, workers) for source in sources
    ]
    train, test, *validation = splits
    assert isinstance(train, Records)
    train.known_labels = labels
    if not validation:
        train, *validation = split_validation(train, fraction, labels)
        fingerprint = stratified_fingerprint(fingerprint)
    assert isinstance(train, Records)
    raw = Raw(
        version,
        fingerprint,
        f"{description}, not in memory",
        num_classes,
        train.seen(workers, smallest),
        test,
        classes,
        validation[0],
    )
    return dataset(name, raw)


def is_folder(name: str) -> bool:
    """Returns True if the name of a data set is a path.

    >>> is_folder("./flowers"), is_folder("mnist")
    (True, False)
    """
    return name.startswith(("/", "~", "./", "../"))


def _resized(split: Split, image_size: int) -> Split:
    if split["image"].shape[1:3] == (image_size, image_size):
        return split
    images = [pixels.resize(image, image_size) for image in split["image"]]
    return split | {"image": np.stack(images)}
