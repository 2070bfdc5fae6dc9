"""Answers of a trained model: its outputs with the names and units of the data.

Shapes: N examples, K classes; H positions of a window of a series with C columns.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.task import Outputs

MOST_NUMBERS = 32  # numbers of an answer that a table has room for
THRESHOLD = 0.5  # probability from which on an independent label is given


@dataclasses.dataclass(frozen=True, repr=False)
class Classes:
    """Answer of a classifier.

    Attributes:
      probabilities: float32 [N, K]; they sum to 1 in each row if the classes are exclusive.
      names: names of the classes.
      exclusive: whether an example has exactly one class, or any number of labels.
    """

    probabilities: np.ndarray
    names: tuple[str, ...]
    exclusive: bool = True

    def __len__(self) -> int:
        return len(self.probabilities)

    def __repr__(self) -> str:
        shown = ", ".join(map(str, self.labels[:5])) + (", ..." if len(self) > 5 else "")
        return f"<Classes of {len(self):,} examples: {shown}>"

    @property
    def labels(self) -> list[Any]:
        """Name of each example's likeliest class; or a tuple of its labels, of at least 0.5."""
        if self.exclusive:
            return [self.names[n] for n in np.argmax(self.probabilities, axis=1)]
        return [
            tuple(name for name, p in zip(self.names, row, strict=True) if p >= THRESHOLD)
            for row in self.probabilities
        ]

    def top(self, count: int = 5) -> list[list[tuple[str, np.float32]]]:
        """Likeliest classes of each example and their probabilities, the likeliest first.

        Args:
          count: number of classes, all if there are fewer.

        Raises:
          UserError: it is less than 1.
        """
        if count < 1:
            raise UserError(f"top({count}): give at least 1")
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :count]
        return [
            [(self.names[n], row[n]) for n in best]
            for row, best in zip(self.probabilities, order, strict=True)
        ]


def answer(outputs: Outputs, kind: str, spec: DataSpec) -> Any:
    """Converts outputs to an answer.

    Args:
      outputs: outputs of the model, NumPy arrays [N, ...].
      kind: meaning of the outputs, one of `task.KINDS`.
      spec: description of the data that the model was trained on.

    Returns:
      `Classes` of a classifier; the outputs themselves of other models.
    """
    if kind not in ("logits", "labels"):
        return outputs
    logits = np.asarray(outputs, np.float64)
    if kind == "logits" and logits.shape[1] == 1:  # a sigmoid of z is a softmax over (0, z)
        logits = np.pad(logits, ((0, 0), (1, 0)))
    if kind == "logits":
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = powers / powers.sum(axis=1, keepdims=True)
    else:
        probabilities = 0.5 + 0.5 * np.tanh(logits / 2)
    count = logits.shape[1]
    names = spec.classes if len(spec.classes) == count else tuple(map(str, range(count)))
    return Classes(probabilities.astype(np.float32), names, kind == "logits")


def finite(outputs: Outputs) -> np.ndarray:
    """Marks the examples whose outputs are all finite, bool [N]."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(outputs)]
    flat = [np.isfinite(x.reshape(len(x), -1)).all(axis=1) for x in leaves]
    return np.logical_and.reduce(flat)


def to_arrays(answer: Any, kind: str) -> dict[str, np.ndarray]:
    """Arrays [N, ...] of an answer by name, for a file of NumPy."""
    if isinstance(answer, Classes):
        return {"probabilities": answer.probabilities, "classes": np.asarray(answer.names, str)}
    if isinstance(answer, dict):
        return {str(name): np.asarray(x) for name, x in answer.items()}
    leaves = jax.tree.leaves(answer)
    if len(leaves) == 1:
        return {{"numbers": "prediction", "images": "images"}.get(kind, "output"): leaves[0]}
    return {f"output_{n}": np.asarray(x) for n, x in enumerate(leaves, 1)}


def to_columns(answer: Any, kind: str, top_k: int) -> dict[str, list[Any]] | None:
    """Columns of a table of N rows; None if an answer has too many numbers for a table.

    Args:
      answer: result of `answer`.
      kind: meaning of the outputs, one of `task.KINDS`.
      top_k: number of the likeliest classes to list.
    """
    if isinstance(answer, Classes):
        columns: dict[str, list[Any]] = {}
        if not answer.exclusive:
            columns["labels"] = ["; ".join(labels) for labels in answer.labels]
        top = answer.top(top_k)
        for n in range(min(top_k, len(answer.names))):
            columns[f"label_{n + 1}"] = [row[n][0] for row in top]
            columns[f"p_{n + 1}"] = [_shortest(row[n][1]) for row in top]
        return columns
    columns = {}
    for name, array in to_arrays(answer, kind).items():
        flat = array.reshape(len(array), -1)
        for n in range(min(flat.shape[1], MOST_NUMBERS + 1)):
            values = map(_shortest, flat[:, n])
            columns[f"{name}_{n + 1}" if flat.shape[1] > 1 else name] = list(values)
    return None if kind == "images" or len(columns) > MOST_NUMBERS else columns


def to_series(
    windows: np.ndarray,
    places: Sequence[tuple[str, int, int]],
    names: Sequence[str],
    position: str,
) -> dict[str, list[Any]]:
    """Columns of a table with a row for each position of windows.

    Args:
      windows: answers [N, H, C].
      places: of each window, the name of its input, the number of positions before it, and the
        number of its first positions to leave out.
      names: names of the C columns. One that the table has already gets an underscore.
      position: name of the column with the number of each position, from 1 on.
    """
    columns: dict[str, list[Any]] = {"input": [], position: []}
    for window, (name, start, skip) in zip(windows, places, strict=True):
        columns["input"] += [name] * (len(window) - skip)
        columns[position] += range(start + skip + 1, start + len(window) + 1)
    kept = [window[skip:] for window, (*_, skip) in zip(windows, places, strict=True)]
    for name, values in zip(names, np.concatenate(kept).T, strict=True):
        while name in columns:
            name += "_"
        columns[name] = list(map(_shortest, values))
    return columns


def _shortest(value: np.generic) -> Any:
    """Python's number of the fewest digits that stands for a number of NumPy.

    >>> _shortest(np.float32(0.1)), _shortest(np.int32(3))
    (0.1, 3)
    """
    return float(str(value)) if isinstance(value, np.floating) else value.item()
