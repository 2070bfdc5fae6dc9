"""Sources of images: scikit-learn's digits, synthetic patterns and TFDS.

Shapes: N images of S by T pixels with C channels, of K classes.
"""

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxdl.console import say
from jaxdl.data import embedded, pixels
from jaxdl.data.batches import Split
from jaxdl.data.pixels import Size, height_and_width
from jaxdl.data.records import Reader

# The reader of TFDS is imported only by a run that has such images.
if TYPE_CHECKING:
    from jaxdl.data.stored import PreparedDataset


class Raw(NamedTuple):
    """Images as their source has them: not resized yet, most without a validation split.

    Attributes:
      version: version of the data.
      fingerprint: SHA-256 of the source's bytes.
      source: location of the data, shown in a run's output.
      num_classes: number of classes, K.
      train: training split, {"image": uint8 [N, H, W, C], "label": int32 [N]}.
      test: test split, if the source has one.
      classes: names of the classes; empty if unknown.
      validation: validation split, if the source has one.
    """

    version: str
    fingerprint: str
    source: str
    num_classes: int
    train: Split
    test: Split | None
    classes: tuple[str, ...] = ()
    validation: Split | None = None


def digits() -> Raw:
    """The 1,797 real handwritten digits, 8x8, of scikit-learn; a fifth is the test split."""
    rows = embedded.read("digits.csv.gz")  # 64 pixels and the label
    image = np.round(rows[:, :-1] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    label = rows[:, -1].astype(np.int32)
    order = np.random.RandomState(0).permutation(len(label))
    parts = order[len(order) // 5 :], order[: len(order) // 5]
    train, test = ({"image": image[part], "label": label[part]} for part in parts)
    names = tuple(map(str, range(10)))
    source = "embedded: 1,797 real handwritten digits of 8x8 pixels of scikit-learn"
    return Raw("1", _sha256(train, test), source, 10, train, test, names)


def synthetic(
    image_size: Size, channels: int = 3, num_classes: int = 10, examples: int = 2000, seed: int = 0
) -> Raw:
    """Synthetic images of any shape: a smooth pattern for each class, plus Gaussian noise.

    Args:
      image_size: side, or height and width, of the images.
      channels: C.
      num_classes: K.
      examples: number of training examples; the test split has a quarter of it.
      seed: seed of the patterns and of the noise.
    """
    random = np.random.default_rng(seed)
    coarse = random.uniform(60, 195, (num_classes, 4, 4, channels)).astype(np.float32)
    height, width = height_and_width(image_size)
    rows, columns = (np.arange(side) * 4 // side for side in (height, width))
    patterns = coarse[:, rows][:, :, columns]  # [K, S, T, C]

    def split(n: int) -> Split:
        label = (np.arange(n) % num_classes).astype(np.int32)
        image = np.empty((n, height, width, channels), np.uint8)
        for row in range(n):  # one image at a time, as the noise of all at once is large
            noise = 40 * random.standard_normal(image.shape[1:], np.float32)
            image[row] = np.clip(patterns[label[row]] + noise, 0, 255)
        return {"image": image, "label": label}

    train, test = split(examples), split(max(examples // 4, 1))
    source = "synthetic: not real images, but a smooth pattern for each class under noise"
    return Raw("2", _sha256(train, test), source, num_classes, train, test)


def from_tfds(name: str, data_dir: str, image_size: Size) -> Raw:
    """Decodes a data set of TFDS, or reads the decoded images from the cache.

    Args:
      name: name of the data set.
      data_dir: TFDS folder; empty: TFDS's default folder.
      image_size: side, or height and width, of the images.

    Raises:
      UserError: there is no such data set, or it is absent or damaged.
    """
    from jaxdl.data import cache, prepare

    stored = prepare.open_or_prepare(name, data_dir, ("image", "label"))
    fingerprint = stored.fingerprint()
    height, width = height_and_width(image_size)
    size = f"{height}" if height == width else f"{height}x{width}"
    key = f"{stored.slug}-{fingerprint[:16]}-{size}"
    names = used_splits(stored)

    def find() -> list[Split] | None:
        cached = cache.read(key) or {}
        splits = [cache.select_split(cached, name) for name in names]
        counts = map(stored.count, names)
        valid = (
            _is_valid(split, count, image_size) for split, count in zip(splits, counts, strict=True)
        )
        return splits if all(valid) else None

    def make() -> list[Split]:
        for name in names:
            stored.check(name)
        splits = [read(stored, name, image_size) for name in names]
        cache.write(key, cache.join_splits(dict(zip(names, splits, strict=True))))
        return splits

    train, test, *validation = cache.get_or_make(key, find, make)
    return Raw(
        stored.version,
        fingerprint,
        f"TFDS, {stored.folder}",
        stored.num_classes,
        train,
        test,
        stored.classes,
        validation[0] if validation else None,
    )


def used_splits(stored: "PreparedDataset") -> tuple[str, ...]:
    """Names of the training, the test and, if there is one, the validation split.

    The names of unused splits are printed.

    Raises:
      UserError: there is no training split, or no other one.
    """
    used = stored.used_splits()
    unused = [name for name in stored.info.shards if name not in used]
    if unused:
        say(f"{stored.slug}: unused splits: {', '.join(unused)}")
    return used


def labels(stored: "PreparedDataset", fingerprint: str, source: Reader) -> np.ndarray:
    """Labels of a split that is not in memory, from the cache after the first time.

    Args:
      stored: data set that the split belongs to.
      fingerprint: SHA-256 of the data set's files.
      source: source of the split, N images.

    Returns:
      The labels, int32 [N].

    Raises:
      UserError: a record is damaged.
    """
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

    return cache.get_or_make(key, find, make)


def read(stored: "PreparedDataset", split: str, image_size: Size) -> Split:
    """Decodes a split of a TFDS folder into memory.

    Args:
      stored: data set to read.
      split: name of the split.
      image_size: side, or height and width; images of another size are resized.

    Returns:
      The split, {"image": uint8 [N, S, T, C], "label": int32 [N]}.

    Raises:
      UserError: the files are damaged.
    """
    images, labels = np.empty(0, np.uint8), np.empty(stored.count(split), np.int32)
    with stored.reading():
        for row, example in enumerate(stored.examples(split)):
            image = example["image"]
            if row == 0:
                shape = (len(labels), *height_and_width(image_size), image.shape[-1])
                images = np.empty(shape, np.uint8)
            images[row] = pixels.resize(image, image_size)
            labels[row] = stored.label(example)
    return {"image": images, "label": labels}


def _is_valid(split: Split, count: int, image_size: Size) -> bool:
    """Returns True if cached arrays have the types and shapes that `read` would give."""
    if set(split) != {"image", "label"}:
        return False
    image, label = split["image"], split["label"]
    return (
        (image.dtype, label.dtype) == (np.uint8, np.int32)
        and image.shape[:3] == (count, *height_and_width(image_size))
        and image.ndim == 4
        and label.shape == (count,)
    )


def _sha256(*splits: Split) -> str:
    sha = hashlib.sha256()
    for split in splits:
        for array in split.values():
            sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
