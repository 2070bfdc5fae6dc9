"""Splits that read and decode images on demand, for data that do not fit into memory.

Shapes: N images of S by T pixels with C channels; B of a batch; K classes.
"""

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxdl.data import pixels
from jaxdl.errors import TrainingError, UserError

RATIO = 4 / 3  # largest aspect ratio of a random crop
TRIES = 10  # draws of a random crop


class Reader(Protocol):
    """Random-access reader of images; it is pickled for other processes, so it must be small."""

    def __len__(self) -> int: ...

    def labels(self) -> np.ndarray:
        """Labels of all images: int32 [N], or float32 [N] numbers or [N, K] several classes.

        Raises:
          UserError: the files are damaged.
        """
        ...

    def read(self, row: int) -> tuple[np.ndarray, Any]:
        """Decodes an image, uint8 [H, W, C] of any size, and returns it with its label.

        Raises:
          UserError: the image is damaged.
        """
        ...


class Draw(NamedTuple):
    """Seed of the random crops of an epoch.

    Attributes:
      seed: seed of the run's data.
      epoch: number of the epoch, or of the step in a run whose epochs repeat examples.
    """

    seed: int
    epoch: int


class Form(NamedTuple):
    """Form of the labels of a split.

    Attributes:
      shape: shape of one label: () or, for several classes at once, (K,).
      dtype: type of the labels.
      centre: mean of the split's labels if they are numbers, repeated as an array `centre` [N].
    """

    shape: tuple[int, ...] = ()
    dtype: str = "int32"
    centre: float | None = None


class Records(dict[str, Any]):
    """Split {"image": uint8 [N, S, T, C], "label": int32 [N]} that is not in memory.

    Labels may have another form, see `Form`.

    Attributes:
      rows: index in the source of each image, int [N].
      workers: number of threads that read, or of processes that prefetch.
      smallest: smallest fraction of an image's area that a random crop keeps.
      known_labels: labels of all images of the source, if they have been read already.
    """

    def __init__(
        self,
        source: Reader,
        rows: np.ndarray,
        image_size: pixels.Size,
        channels: int,
        workers: int,
        smallest: float = 1.0,
        form: Form | None = None,
    ):
        """Selects rows of a source.

        Args:
          source: source of the images.
          rows: index in the source of each image, int [N].
          image_size: side, or height and width, of the images.
          channels: C.
          workers: number of threads that read on demand, or of processes that prefetch.
          smallest: smallest fraction of an image's area that a random crop keeps; 1: whole images,
            as in evaluation.
          form: form of the labels; None: classes.
        """
        size, form = pixels.height_and_width(image_size), form or Form()
        label = Column(self, "label", (len(rows), *form.shape), np.dtype(form.dtype))
        super().__init__(
            image=Column(self, "image", (len(rows), *size, channels), np.dtype(np.uint8)),
            label=label,
        )
        if form.centre is not None:
            self["centre"] = dataclasses.replace(label, name="centre")
        self.rows, self.workers, self.smallest = rows, workers, smallest
        self.known_labels: np.ndarray | None = None
        self._source, self._size, self._channels, self._form = source, size, channels, form

    def __reduce__(self) -> Any:
        options = self.workers, self.smallest, self._form
        return Records, (self._source, self.rows, self._size, self._channels, *options)

    def of(self, rows: np.ndarray) -> "Records":
        """Returns the split of some of the rows, int [M]."""
        return self._of(self.rows[rows], self.workers, self.smallest, self._form)

    def seen(self, workers: int, smallest: float) -> "Records":
        """Returns the same rows with other values of `workers` and `smallest`."""
        return self._of(self.rows, workers, smallest, self._form)

    def labelled(self, labels: np.ndarray) -> "Records":
        """Returns the same rows with the form of their labels, [N] or [N, K]."""
        is_number = labels.ndim == 1 and labels.dtype.kind == "f"
        centre = float(labels.mean(dtype=np.float64)) if is_number else None
        form = Form(labels.shape[1:], str(labels.dtype), centre)
        return self._of(self.rows, self.workers, self.smallest, form)

    def _of(self, rows: np.ndarray, workers: int, smallest: float, form: "Form") -> "Records":
        options = self._size, self._channels, workers, smallest, form
        new = Records(self._source, rows, *options)
        new.known_labels = self.known_labels
        return new

    def labels(self) -> np.ndarray:
        """Labels of all rows, see `Reader.labels`, without decoding images.

        Raises:
          UserError: the files are damaged.
        """
        labels = self._source.labels() if self.known_labels is None else self.known_labels
        return labels[self.rows]

    def read(self, rows: np.ndarray, draw: Draw | None = None) -> dict[str, np.ndarray]:
        """Reads images during training.

        Args:
          rows: rows to read, int [B].
          draw: seed of random crops; None: whole images.

        Returns:
          {"image": uint8 [B, S, T, C], "label": int32 [B]}, and `centre` [B] for numbers.

        Raises:
          TrainingError: an image is damaged.
        """
        try:
            return self.looked_at(rows, draw)
        except UserError as error:
            raise TrainingError(
                f"{error}; a repaired file is other data: resume with --resume=force"
            ) from error

    def looked_at(self, rows: np.ndarray, draw: Draw | None = None) -> dict[str, np.ndarray]:
        """Reads images before training; same arguments and result as `read`.

        Raises:
          UserError: an image is damaged.
        """
        source_rows = [int(row) for row in self.rows[rows]]
        with ThreadPoolExecutor(self.workers) as threads:
            examples = list(threads.map(lambda row: self._read_one(row, draw), source_rows))
        images = np.empty((len(examples), *self._size, self._channels), np.uint8)
        for n, (image, _) in enumerate(examples):
            images[n] = image
        labels = np.asarray([label for _, label in examples], self._form.dtype)
        arrays = {"image": images, "label": labels.reshape(-1, *self._form.shape)}
        if self._form.centre is not None:
            arrays["centre"] = np.full(len(examples), self._form.centre, np.float32)
        return arrays

    def _read_one(self, row: int, draw: Draw | None) -> tuple[np.ndarray, Any]:
        """Reads an image, [S, T, C], and its label."""
        image, label = self._source.read(row)
        if draw is None or self.smallest == 1:
            return pixels.resize(image, self._size), label
        # Each image of each epoch has its own counter, so that the crop does not depend on the
        # worker that draws it.
        bits = np.random.Philox(key=np.array(draw, np.uint64), counter=[0, 0, 0, row])
        aspect = self._size[1] / self._size[0]
        box = random_crop_box(image.shape[:2], self.smallest, np.random.Generator(bits), aspect)
        return pixels.crop_and_resize(image, box, self._size), label


@dataclasses.dataclass(frozen=True)
class Column:
    """Array of a split that is not in memory; values are read when it is indexed.

    Attributes:
      records: split that the column belongs to.
      name: name of the column.
      shape: shape of the array, [N, ...].
      dtype: type of the entries.
    """

    records: Records
    name: str
    shape: tuple[int, ...]
    dtype: Any

    @property
    def nbytes(self) -> int:
        """Bytes that the whole array would take in memory."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        rows = np.arange(len(self))[index]
        values = self.records.looked_at(np.atleast_1d(rows))[self.name]
        return values if rows.ndim else values[0]


def random_crop_box(
    shape: tuple[int, ...], smallest: float, random: np.random.Generator, aspect: float = 1.0
) -> tuple[int, int, int, int]:
    """Box of a random resized crop (Szegedy et al., 2015).

    The crop's fraction of the image's area is uniform between `smallest` and 1. The logarithm of
    its aspect ratio, relative to `aspect`, is uniform between those of 3/4 and 4/3. If none of ten
    draws fits into the image, the crop is the largest central one within these aspect ratios.

    Args:
      shape: height and width of the image.
      smallest: smallest fraction of the area.
      random: random generator.
      aspect: width divided by height of the result.

    Returns:
      Left, top, right and bottom of the crop, in pixels.
    """
    H, W = shape
    for _ in range(TRIES):
        uniform_area, uniform_ratio, x, y = random.random(4)
        crop_area = H * W * (smallest + (1 - smallest) * uniform_area)
        ratio = aspect * RATIO ** (2 * uniform_ratio - 1)
        w, h = round(math.sqrt(crop_area * ratio)), round(math.sqrt(crop_area / ratio))
        if 0 < w <= W and 0 < h <= H:
            left, top = int(x * (W - w + 1)), int(y * (H - h + 1))
            return left, top, left + w, top + h
    w, h = min(W, round(H * RATIO * aspect)), min(H, round(W * RATIO / aspect))
    left, top = (W - w) // 2, (H - h) // 2
    return left, top, left + w, top + h
