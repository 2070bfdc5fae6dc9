"""Images of one's own by reader, decoded into memory or left to be read on demand.

Shapes: N images of S by T pixels with C channels, K classes.
"""

import dataclasses
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxdl import memory
from jaxdl.console import track
from jaxdl.data import cache, pixels
from jaxdl.data.bad_examples import BadExamples
from jaxdl.data.batches import Split
from jaxdl.data.labels import encode_labels
from jaxdl.data.pixels import Size, height_and_width
from jaxdl.data.records import Reader, Records
from jaxdl.errors import UserError, first_line


class Opened(NamedTuple):
    """Images of one's own that are not decoded yet.

    Attributes:
      name: name of the data set, for messages.
      fingerprint: SHA-256 of their bytes, names and labels.
      source: location of the data, shown in a run's output.
      readers: readers of the splits train and, if there are any, validation and test.
      classes: names of the classes; empty if unknown.
      notice: one line about files that are not used, or "".
    """

    name: str
    fingerprint: str
    source: str
    readers: dict[str, Reader]
    classes: tuple[str, ...] = ()
    notice: str = ""


@dataclasses.dataclass(frozen=True)
class ArrayReader:
    """Reader of images and labels that are in memory.

    Attributes:
      name: name of the split, for messages.
      images: images [N, ...] of a form of `pixels.to_levels`.
      values: labels of the images, see `Reader.labels`.
    """

    name: str
    images: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def labels(self) -> np.ndarray:
        """Labels of all images."""
        return self.values

    def read(self, row: int) -> tuple[np.ndarray, Any]:
        """Returns an image, uint8 [H, W, C], and its label.

        Raises:
          UserError: a pixel is out of range.
        """
        try:
            return pixels.to_levels(self.images[row]), self.values[row]
        except ValueError as error:
            where = f"{self.name}, row {row:,}"
            raise UserError(f"{where}: {first_line(error)}: convert the image") from error


def decode(opened: Opened, image_size: Size, bad: BadExamples) -> tuple[dict[str, Split], int]:
    """Decodes all splits into memory, without damaged images.

    Args:
      opened: the images.
      image_size: side, or height and width; images of another size are resized.
      bad: gets the damaged images.

    Returns:
      The splits {"image": uint8 [N, S, T, C], "label": [N] or [N, K]}, and the number of classes,
      which is 0 if labels are numbers.

    Raises:
      UserError: an example is damaged and must not be left out, all of a split are, a label is not
        valid, the numbers of channels differ, or the images do not fit into memory.
    """
    splits: dict[str, Split] = {}
    channels = 0
    for split, reader in opened.readers.items():
        images, labels = np.empty(0, np.uint8), reader.labels()
        for row in track(range(len(reader)), f"decoding {opened.name} {split}"):
            try:
                image = _read(reader, f"{opened.name} ({split}), row {row:,}", row, channels)
                channels = channels or image.shape[-1]
            except UserError as error:
                bad.add(split, row, error)
                continue
            if not images.size:
                shape = (len(reader), *height_and_width(image_size), channels)
                _check_memory(f"{opened.name} ({split})", shape)
                images = np.empty(shape, np.uint8)
            images[row] = pixels.resize(image, image_size)
        rows = bad.kept(split, len(reader))
        if len(rows) < len(reader):
            images, labels = images[rows], labels[rows]
        splits[split] = {"image": images, "label": labels}
    found = {split: part["label"] for split, part in splits.items()}
    found, _, num_classes = encode_labels(opened.name, found, opened.classes)
    return {split: part | {"label": found[split]} for split, part in splits.items()}, num_classes


def on_demand(
    opened: Opened, image_size: Size, bad: BadExamples, workers: int, verify: bool
) -> tuple[dict[str, Records], int]:
    """Splits that read their images on demand, without damaged images.

    Args:
      opened: the images.
      image_size: side, or height and width; images of another size are resized.
      bad: gets the damaged images.
      workers: number of threads that read, or of processes that prefetch.
      verify: decode every image once now, to leave out damaged ones. The result is cached.

    Returns:
      The splits, and the number of classes, which is 0 if labels are numbers.

    Raises:
      UserError: a label is not valid, the first image of the training split is damaged, or all of
        a split are.
    """
    if verify:
        _find_damaged(opened, bad, workers)
    splits = {}
    channels = 0
    for split, reader in opened.readers.items():
        rows = bad.kept(split, len(reader))
        channels = channels or reader.read(int(rows[0]))[0].shape[-1]
        splits[split] = Records(reader, rows, image_size, channels, workers)
    found = {split: records.labels() for split, records in splits.items()}
    found, _, num_classes = encode_labels(opened.name, found, opened.classes)
    return {split: part.labelled(found[split]) for split, part in splits.items()}, num_classes


def _find_damaged(opened: Opened, bad: BadExamples, workers: int) -> None:
    """Decodes every image once, unless the cache has the rows of the damaged ones."""
    import PIL  # another version may decode other files

    key = f"damaged-{opened.fingerprint[:16]}-{PIL.__version__}"

    def find() -> dict[str, np.ndarray] | None:
        cached = cache.read(key) or {}
        fits = set(cached) == set(opened.readers) and all(
            rows.dtype == np.int64
            and rows.ndim == 1
            and np.isin(rows, np.arange(len(reader))).all()
            for rows, reader in zip(cached.values(), opened.readers.values(), strict=True)
        )
        return cached if fits else None

    def make() -> dict[str, np.ndarray]:
        found = {
            split: np.array(list(_damaged_rows(opened, split, workers)), np.int64)
            for split in opened.readers
        }
        cache.write(key, found)
        return found

    for split, rows in cache.get_or_make(key, find, make).items():
        for row in rows.tolist():
            bad.add(split, row, _damage(opened, split, row) or UserError(f"row {row}"))


def _damaged_rows(opened: Opened, split: str, workers: int) -> list[int]:
    """Rows that cannot be decoded."""
    with ThreadPoolExecutor(workers or os.cpu_count()) as threads:
        rows = range(len(opened.readers[split]))
        damages = threads.map(lambda row: _damage(opened, split, row), rows)
        verified = zip(track(rows, f"verifying {opened.name} {split}"), damages, strict=True)
        return [row for row, error in verified if error is not None]


def _damage(opened: Opened, split: str, row: int) -> UserError | None:
    """Returns the error of an image that cannot be decoded."""
    try:
        _read(opened.readers[split], f"{opened.name} ({split}), row {row:,}", row)
    except UserError as error:
        return error
    return None


def _read(reader: Reader, where: str, row: int, channels: int = 0) -> np.ndarray:
    """Decodes an image, and checks its label and its number of channels; 0: any number.

    Raises:
      UserError: the image is damaged or has other channels, or the label is not finite.
    """
    image, label = reader.read(row)
    if not np.isfinite(label).all():
        raise UserError(f"{where}: the label is {label}: give a finite number")
    if channels and image.shape[-1] != channels:
        raise UserError(
            f"{where} has {image.shape[-1]} channels and the first image {channels}: convert it"
        )
    return image


def _check_memory(where: str, shape: tuple[int, ...]) -> None:
    needed, installed = math.prod(shape), memory.installed()
    if needed > installed:  # NumPy would allocate it, and fail only while it is filled
        size = f"{shape[1]}" if shape[1] == shape[2] else f"{shape[1]}x{shape[2]}"
        raise UserError(
            f"the images of {where} take {needed / 2**30:,.1f} GiB at --image_size={size}, and "
            f"this machine has {installed / 2**30:,.1f}: give a smaller size or --stream"
        )
