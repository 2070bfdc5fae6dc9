"""Images that are read and decoded when they are asked for, for data that no memory holds.

Shapes: N images of S by S pixels with C channels; B of a batch.
"""

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxdl.data import pixels
from jaxdl.errors import TrainingError, UserError

RATIO = 4 / 3  # of the longer side of a random area to the shorter one, at most
TRIES = 10


class Source(Protocol):
    """Place of images; it goes to other processes, so it is small and can be pickled."""

    def __len__(self) -> int: ...

    def labels(self) -> np.ndarray:
        """The labels of all: int32 [N].

        Raises:
          UserError: the files are damaged.
        """
        ...

    def read(self, row: int) -> tuple[np.ndarray, int]:
        """An image uint8 [H, W, C] of any size, and its label.

        Raises:
          UserError: it is damaged.
        """
        ...


class Draw(NamedTuple):
    """Arguments of a batch's random areas, beside the place of an image."""

    seed: int
    epoch: int


class Records(dict[str, Any]):
    """A split {"image": uint8 [N, S, S, C], "label": int32 [N]} of columns, not in memory."""

    def __init__(
        self,
        source: Source,
        rows: np.ndarray,
        image_size: int,
        channels: int,
        workers: int,
        smallest: float = 1.0,
    ):
        """Takes rows [N] of a source.

        Args:
          source: where the images lie.
          rows: their places there.
          image_size: S.
          channels: C.
          workers: threads that read what is asked for, or processes that read ahead.
          smallest: part of an image that training may see; 1: all of it, as evaluation does.
        """
        shape = len(rows), image_size, image_size, channels
        super().__init__(
            image=Column(self, "image", shape, np.uint8),
            label=Column(self, "label", shape[:1], np.int32),
        )
        self.rows, self.workers, self.smallest = rows, workers, smallest
        self._source, self._shape = source, shape

    def __reduce__(self) -> Any:
        return Records, (self._source, self.rows, *self._shape[2:], self.workers, self.smallest)

    def of(self, rows: np.ndarray) -> "Records":
        """A split of some of the rows."""
        _, _, size, channels = self._shape
        return Records(self._source, self.rows[rows], size, channels, self.workers, self.smallest)

    def seen(self, workers: int, smallest: float) -> "Records":
        """The same rows, read by so many workers, in parts of at least that size."""
        return Records(self._source, self.rows, *self._shape[2:], workers, smallest)

    def read(self, rows: np.ndarray, draw: Draw | None = None) -> dict[str, np.ndarray]:
        """Reads rows [B] while a run goes on; with a draw, a random area of each image.

        Raises:
          TrainingError: an image is damaged.
        """
        try:
            return self.looked_at(rows, draw)
        except UserError as error:
            raise TrainingError(
                f"{error}; other bytes are other data, so go on with --resume=force"
            ) from error

    def looked_at(self, rows: np.ndarray, draw: Draw | None = None) -> dict[str, np.ndarray]:
        """The same before a run begins.

        Raises:
          UserError: an image is damaged.
        """
        places = [int(place) for place in self.rows[rows]]
        with ThreadPoolExecutor(self.workers) as threads:
            found = list(threads.map(lambda place: self._one(place, draw), places))
        image = np.empty((len(found), *self._shape[1:]), np.uint8)
        for n, (picture, _) in enumerate(found):
            image[n] = picture
        return {"image": image, "label": np.asarray([label for _, label in found], np.int32)}

    def _one(self, place: int, draw: Draw | None) -> tuple[np.ndarray, int]:
        picture, label = self._source.read(place)
        if draw is None or self.smallest == 1:
            return pixels.resize(picture, self._shape[1]), label
        # A counter apart for each image of each epoch, whoever reads it and when.
        bits = np.random.Philox(key=np.array(draw, np.uint64), counter=[0, 0, 0, place])
        box = area(picture.shape[:2], self.smallest, np.random.Generator(bits))
        return pixels.cut(picture, box, self._shape[1]), label


@dataclasses.dataclass(frozen=True)
class Column:
    """One of a split's arrays: its shape is known, its values are read when they are indexed."""

    records: Records
    name: str
    shape: tuple[int, ...]
    dtype: Any

    @property
    def nbytes(self) -> int:
        """Bytes that all of it would take."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        rows = np.arange(len(self))[index]
        found = self.records.looked_at(np.atleast_1d(rows))[self.name]
        return found if rows.ndim else found[0]


def area(
    shape: tuple[int, ...], smallest: float, random: np.random.Generator
) -> tuple[int, int, int, int]:
    """A random part of an image of height and width `shape`: left, top, right, bottom.

    Its part of the image is uniform in `smallest` to 1, the logarithm of its sides' ratio between
    those of 3/4 and 4/3 (Szegedy et al., 2015). Where none of ten draws fits into the image it is
    the largest central one of such a ratio.
    """
    H, W = shape
    for _ in range(TRIES):
        part, ratio, x, y = random.random(4)
        pixels = H * W * (smallest + (1 - smallest) * part)
        ratio = RATIO ** (2 * ratio - 1)
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= W and 0 < h <= H:
            left, top = int(x * (W - w + 1)), int(y * (H - h + 1))
            return left, top, left + w, top + h
    w, h = min(W, round(H * RATIO)), min(H, round(W * RATIO))
    left, top = (W - w) // 2, (H - h) // 2
    return left, top, left + w, top + h
