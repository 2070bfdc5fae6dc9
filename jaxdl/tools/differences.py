"""Differences of arrays, of lists of operations and of dicts, in numbers and in words."""

import difflib
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxdl.errors import shortened
from jaxdl.train.operations import Operation


class Difference(NamedTuple):
    """Difference of two arrays.

    Attributes:
      name: the array.
      differing: how many of the numbers differ.
      size: number of numbers.
      largest: largest absolute difference.
      scale: largest absolute value of both.
    """

    name: str
    differing: int
    size: int
    largest: float
    scale: float

    def __str__(self) -> str:
        if math.isnan(self.largest):
            return f"{self.name}: shapes or types differ"
        return (
            f"{self.name}: {self.differing} of {self.size} numbers differ, by up to "
            f"{self.largest:.3g} (largest value {self.scale:.3g})"
        )


def difference(name: str, a: np.ndarray, b: np.ndarray) -> Difference:
    """Measures how two arrays differ, bit by bit.

    >>> str(difference("x", np.float32([1, 2]), np.float32([1, 2.5])))
    'x: 1 of 2 numbers differ, by up to 0.5 (largest value 2.5)'
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return Difference(name, max(a.size, b.size), max(a.size, b.size), math.nan, math.nan)
    width = max(a.dtype.itemsize, 1)
    bits_a, bits_b = (np.frombuffer(x.tobytes(), np.uint8).reshape(x.size, width) for x in (a, b))
    differing = (bits_a != bits_b).any(axis=1)
    x, y = (v.astype(np.float64).ravel() for v in (a, b))
    gap = np.abs(x - y)[differing]
    values = np.abs(np.concatenate([x, y]))
    largest = float(np.nanmax(gap, initial=0.0))
    return Difference(name, int(differing.sum()), a.size, largest, float(values.max(initial=0.0)))


def differing_operations(a: list[Operation], b: list[Operation]) -> tuple[list[int], list[int]]:
    """Finds the operations of each list whose results the other one lacks.

    If both lists have the same operations, they are compared in order.

    Returns:
      Their positions in each list.
    """
    if [one[:4] for one in a] == [one[:4] for one in b]:
        pairs = enumerate(zip(a, b, strict=True))
        numbers = [n for n, (x, y) in pairs if x.digests != y.digests]
        return numbers, numbers
    results = [{digest for one in many for digest in one.digests.split()} for many in (a, b)]
    return _lacking(a, results[1]), _lacking(b, results[0])


def unmatched_operations(a: list[Operation], b: list[Operation]) -> tuple[list[int], list[int]]:
    """Aligns two lists of operations without their results; returns positions without a partner."""
    first, second = ([one[:4] for one in many] for many in (a, b))
    codes = difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes()
    ranges = [code[1:] for code in codes if code[0] != "equal"]
    return (
        [n for start, end, _, _ in ranges for n in range(start, end)],
        [n for _, _, start, end in ranges for n in range(start, end)],
    )


def _lacking(operations: list[Operation], results: set[str]) -> list[int]:
    return [n for n, one in enumerate(operations) if set(one.digests.split()) - results]


def differing_entries(
    a: Mapping[str, str], b: Mapping[str, str], here: str = "A", there: str = "B"
) -> str:
    """Text with the entries in which two dicts differ.

    Args:
      a: the first dict.
      b: the second dict.
      here: name of the first.
      there: name of the second.

    >>> differing_entries({"jax": "0.10.2", "numpy": "2.3"}, {"jax": "0.12.0", "numpy": "2.3"})
    'jax 0.10.2 (A) and 0.12.0 (B)'
    """
    names = [name for name in dict.fromkeys((*a, *b)) if a.get(name) != b.get(name)]
    return ", ".join(
        f"{name} {_short(a.get(name))} ({here}) and {_short(b.get(name))} ({there})"
        for name in names
    )


def _short(text: str | None) -> str:
    if text is None:
        return "absent"
    return shortened(text[:12] if len(text) == 64 else text or "''")
