"""Image-classification data sets in memory: TFDS's by name, folders, `digits`, `synthetic`.

Shapes: N images of S by S pixels with C channels, of K classes.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxdl.config import absolute
from jaxdl.console import say
from jaxdl.data import pixels
from jaxdl.data.batches import Dataset, Split, by_class, split_validation
from jaxdl.data.records import Records, Source
from jaxdl.data.spec import describe
from jaxdl.errors import UserError

# Where images lie is read by modules of its own, imported where a run has such images.
if TYPE_CHECKING:
    from jaxdl.data.folder import ImageFolder
    from jaxdl.data.stored import Stored

# Classes that a mirror changes (or may): letters, digits. Others keep their label when flipped.
ONE_WAY = frozenset(
    "digits mnist emnist kmnist svhn_cropped omniglot cmaterdb synthetic".split()  # noqa: SIM905
)
SAMPLE = 10_000  # images whose pixels stand for those of all, where they are not in memory


class Raw(NamedTuple):
    """A source's images as they are: not yet resized, and most have no validation split yet."""

    version: str
    fingerprint: str
    source: str
    num_classes: int
    train: Split
    test: Split
    classes: tuple[str, ...] = ()  # names of labels
    validation: Split | None = None  # where the source has one


def dataset(name: str, raw: Raw) -> Dataset:
    """The data set of that name, with splits {"image": uint8 [N, S, S, C], "label": int32 [N]}.

    Raises:
      UserError: a label is none of the classes.
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
    """Mean and standard deviation of pixels of images [N, S, S, C], 0 to 255: float32 [C] each.

    Of images that are not in memory, those of SAMPLE of them, evenly spread.
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
    """Holds labels that are in memory against the number of classes.

    Raises:
      UserError: one is none of them.
    """
    if not isinstance(labels, np.ndarray):
        return
    low, high = np.min(labels), np.max(labels)
    if low < 0 or high >= num_classes:
        raise UserError(
            f"labels of {where} go from {low} to {high}, and of its classes there are "
            f"{num_classes}: give as many classes as labels have, from 0 on"
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
    """Loads a data set and carves a validation split out of its training split.

    Args:
      name: `embedded`, `digits`, `synthetic`, an image-classification data set of TFDS, or what
        `is_folder`: one that holds train/CLASS/*.jpg and test/CLASS/*.jpg.
      embedded: the data set that `embedded` stands for.
      data_dir: TFDS folder; empty: TFDS's own.
      image_size: S; images of another size are resized, bilinearly.
      validation_fraction: of the training images, and as many of each class. The same ones for
        every seed, so that runs can be compared. None of a folder that has a validation split.
      stream: leave the images where they are, and read them when they are asked for.
      workers: that read them then; 0: one for each processor.
      smallest: part of an image that training may see then; 1: all of it.

    Raises:
      UserError: there is no such data set, or it is absent, damaged or too small, or has no files
        to stream; or Grain is not installed, which streams.
    """
    name = embedded if name == "embedded" else name
    if stream:
        return _streamed(name, data_dir, image_size, validation_fraction, workers, smallest)
    if name == "digits":
        raw = digits()
    elif name == "synthetic":
        raw = synthetic(image_size)
    elif is_folder(name):
        raw = _from_folder(name, image_size)
    else:
        raw = _from_tfds(name, data_dir, image_size)
    train, test = _resized(raw.train, image_size), _resized(raw.test, image_size)
    validation, fingerprint = raw.validation, raw.fingerprint
    if validation is None:
        train, validation = split_validation(train, validation_fraction, train["label"])
        fingerprint = by_class(fingerprint)
    return dataset(
        name,
        raw._replace(train=train, validation=validation, test=test, fingerprint=fingerprint),
    )


def _streamed(
    name: str, data_dir: str, image_size: int, fraction: float, workers: int, smallest: float
) -> Dataset:
    from jaxdl.data import pipeline, prepare
    from jaxdl.data.folder import ImageFolder

    pipeline.check()
    if is_folder(name):
        folder = ImageFolder(Path(absolute(name, "dataset")))
        fingerprint, num_classes = folder.fingerprint(), len(folder.classes)
        version, source, classes = "1", _described(folder), folder.classes
        sources: list[Source] = [folder.source(split) for split in folder.splits]
        labels = sources[0].labels()
        notice = folder.left_out()
    elif name in ("digits", "synthetic"):
        raise UserError(f"--stream with --dataset={name}, which lies in no file: leave it out")
    else:
        stored = prepare.opened(name, data_dir, ("image", "label"))
        version, source, classes = stored.version, f"TFDS, {stored.folder}", stored.classes
        fingerprint, num_classes = stored.fingerprint(), stored.num_classes
        sources = [stored.source(split) for split in _splits(stored)]
        labels, notice = _labels(stored, fingerprint, sources[0]), ""
    channels = sources[0].read(0)[0].shape[-1]
    if notice:
        say(notice)
    workers = workers or len(os.sched_getaffinity(0))
    every: list[Split] = [
        Records(s, np.arange(len(s)), image_size, channels, workers) for s in sources
    ]
    train, test, *validation = every
    if not validation:
        train, *validation = split_validation(train, fraction, labels)
        fingerprint = by_class(fingerprint)
    assert isinstance(train, Records)
    return dataset(
        name,
        Raw(
            version,
            fingerprint,
            f"{source}, not in memory",
            num_classes,
            train.seen(workers, smallest),
            test,
            classes,
            validation[0],
        ),
    )


def is_folder(name: str) -> bool:
    """Returns True if the name of a data set is a path: /..., ~..., ./... or ../..."""
    return name.startswith(("/", "~", "./", "../"))


def digits() -> Raw:
    """The 1,797 real handwritten digits, 8x8, that scikit-learn carries; a fifth is the test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    image = np.round(bunch.images * 255 / 16).astype(np.uint8)[..., None]  # [1797, 8, 8, 1]
    label = bunch.target.astype(np.int32)
    order = np.random.RandomState(0).permutation(len(label))
    rows = order[len(order) // 5 :], order[: len(order) // 5]
    train, test = ({"image": image[part], "label": label[part]} for part in rows)
    names = tuple(map(str, range(10)))
    source = "embedded: 1,797 real handwritten digits of 8x8 pixels that scikit-learn carries"
    return Raw("1", _hash(train, test), source, 10, train, test, names)


def synthetic(
    image_size: int, channels: int = 3, num_classes: int = 10, examples: int = 2000, seed: int = 0
) -> Raw:
    """A learnable stand-in of any shape: each class is a smooth pattern, each image adds noise."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(60, 195, (num_classes, 4, 4, channels)).astype(np.float32)
    rows = np.arange(image_size) * 4 // image_size
    patterns = coarse[:, rows][:, :, rows]  # [K, S, S, C]

    def split(n: int) -> Split:
        label = (np.arange(n) % num_classes).astype(np.int32)
        image = np.empty((n, image_size, image_size, channels), np.uint8)
        for row in range(n):  # one at a time: the noise of all at once is large
            noise = 40 * random.standard_normal(image.shape[1:], np.float32)
            image[row] = np.clip(patterns[label[row]] + noise, 0, 255)
        return {"image": image, "label": label}

    train, test = split(examples), split(max(examples // 4, 1))
    source = "synthetic: not real images, but a smooth pattern for each class under noise"
    return Raw("2", _hash(train, test), source, num_classes, train, test)


def _from_folder(name: str, image_size: int) -> Raw:
    from jaxdl.data.folder import ImageFolder

    folder = ImageFolder(Path(absolute(name, "dataset")))
    train, test, *others = (folder.read(split, image_size) for split in folder.splits)
    if folder.left_out():
        say(folder.left_out())
    return Raw(
        "1",
        folder.fingerprint(),
        _described(folder),
        len(folder.classes),
        train,
        test,
        folder.classes,
        others[0] if others else None,
    )


def _described(folder: "ImageFolder") -> str:
    """Source of the images, and the folder of each split."""
    test, *others = folder.splits[1:]
    validation = f"{others[0]}/ to validate" if others else "validation drawn from train/"
    return f"folder {folder.folder}, {validation}, {test}/ to test"


def _from_tfds(name: str, data_dir: str, image_size: int) -> Raw:
    from jaxdl.data import cache, prepare

    stored = prepare.opened(name, data_dir, ("image", "label"))
    fingerprint = stored.fingerprint()
    key = f"{stored.slug}-{fingerprint[:16]}-{image_size}"
    names = _splits(stored)

    def find() -> list[Split] | None:
        cached = cache.read(key) or {}
        splits = [cache.part(cached, name) for name in names]
        counts = map(stored.count, names)
        fit = (_fits(*both, image_size) for both in zip(splits, counts, strict=True))
        return splits if all(fit) else None

    def make() -> list[Split]:
        for name in names:
            stored.check(name)
        splits = [read(stored, name, image_size) for name in names]
        cache.write(key, cache.joined(dict(zip(names, splits, strict=True))))
        return splits

    splits = cache.once(key, find, make)
    source = f"TFDS, {stored.folder}"
    train, test, *others = splits
    return Raw(
        stored.version,
        fingerprint,
        source,
        stored.num_classes,
        train,
        test,
        stored.classes,
        others[0] if others else None,
    )


def _splits(stored: "Stored") -> tuple[str, ...]:
    """The splits to train, to test and, if there is one, to validate on; others are named."""
    used = stored.used_splits()
    others = [name for name in stored.info.shards if name not in used]
    if others:
        say(f"{stored.slug}: not used are the splits {', '.join(others)}")
    return used


def _labels(stored: "Stored", fingerprint: str, source: Source) -> np.ndarray:
    """The labels of a source that is not in memory, int32 [N]; read once, and kept."""
    from jaxdl.data import cache

    key = f"{stored.slug}-{fingerprint[:16]}-labels"

    def find() -> np.ndarray | None:
        label = (cache.read(key) or {}).get("label")
        if label is None or (label.dtype, label.shape) != (np.int32, (len(source),)):
            return None
        return label if label.min() >= 0 and label.max() < stored.num_classes else None

    def make() -> np.ndarray:
        label = source.labels()
        cache.write(key, {"label": label})
        return label

    return cache.once(key, find, make)


def read(stored: "Stored", split: str, image_size: int) -> Split:
    """Decodes a whole split of a TFDS folder into arrays, images resized.

    Raises:
      UserError: the files are damaged.
    """
    image, label = np.empty(0, np.uint8), np.empty(stored.count(split), np.int32)
    with stored.reading():
        for row, example in enumerate(stored.examples(split)):
            picture = example["image"]
            if row == 0:
                shape = (len(label), image_size, image_size, picture.shape[-1])
                image = np.empty(shape, np.uint8)
            image[row] = pixels.resize(picture, image_size)
            label[row] = stored.label(example)
    return {"image": image, "label": label}


def _fits(split: Split, count: int, image_size: int) -> bool:
    """Returns True if arrays from elsewhere have the types and shapes that `read` would give."""
    if set(split) != {"image", "label"}:
        return False
    image, label = split["image"], split["label"]
    return (
        (image.dtype, label.dtype) == (np.uint8, np.int32)
        and image.shape[:3] == (count, image_size, image_size)
        and image.ndim == 4
        and label.shape == (count,)
    )


def _resized(split: Split, image_size: int) -> Split:
    if split["image"].shape[1:3] == (image_size, image_size):
        return split
    return split | {"image": np.stack([pixels.resize(i, image_size) for i in split["image"]])}


def _hash(*splits: Split) -> str:
    sha = hashlib.sha256()
    for split in splits:
        for array in split.values():
            sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
