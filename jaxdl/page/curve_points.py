"""Curves of a log, and their reduction to the mean, least and greatest value of intervals."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from jaxdl.run import metrics_log

MOST_CURVES = 60  # of a run, whose log may be a stranger's
DIGITS = 5  # significant digits of a value


class Points(NamedTuple):
    """Points of a curve.

    Attributes:
      steps: int64 [N].
      values: float64 [N]; NaN where a value was not finite.
    """

    steps: np.ndarray
    values: np.ndarray


def from_lines(lines: Iterable[metrics_log.Line]) -> dict[str, Points]:
    """Curves of a log by the name of split and metric, such as `train/loss`.

    >>> from_lines([{"step": 5, "split": "train", "loss": 0.5}])["train/loss"].values
    array([0.5])
    """
    curves: dict[str, tuple[list[int], list[Any]]] = {}
    known: dict[tuple[str, ...], list[tuple[str, list[int], list[Any]]]] = {}
    for line in lines:
        kind = line["split"], *line  # most lines have the same fields as one before
        if kind not in known:
            for metric in metrics_log.metric_names(line):
                if len(curves) < MOST_CURVES:
                    curves.setdefault(f"{line['split']}/{metric}", ([], []))
            names = {
                metric: f"{line['split']}/{metric}" for metric in metrics_log.metric_names(line)
            }
            known[kind] = [(m, *curves[name]) for m, name in names.items() if name in curves]
        for metric, steps, values in known[kind]:
            steps.append(line["step"])
            values.append(line[metric])
    return {name: _points(*both) for name, both in curves.items()}


def _points(steps: list[int], values: list[float | None]) -> Points:
    """Points of a curve; a value whose mean cannot be computed is NaN."""
    numbers = np.array(values, float)
    return Points(
        np.array(steps, np.int64),
        np.where(np.abs(numbers) <= metrics_log.LARGEST, numbers, np.nan),
    )


def reduced(points: Points, most: int) -> dict[str, list[Any]]:
    """Reduces a curve to at most `most` intervals of equally many points.

    Returns:
      `steps` and `mean`: the middle and the mean of each interval, ignoring values that are not
      finite; None if none is. For a curve that was reduced also `low` and `high`, the least and the
      greatest value of each.

    >>> reduced(Points(np.arange(4), np.array([0.0, 2.0, 4.0, np.nan])), 2)
    {'steps': [0, 2], 'mean': [1.0, 4.0], 'low': [0.0, 4.0], 'high': [2.0, 4.0]}
    """
    steps, values = points
    if len(values) <= most:
        return {"steps": steps.tolist(), "mean": _rounded(values)}
    starts = np.arange(most) * len(values) // most
    ends = np.append(starts[1:], len(values))
    is_number = ~np.isnan(values)
    counts = np.add.reduceat(is_number, starts, dtype=np.int64)
    totals = np.add.reduceat(np.where(is_number, values, 0.0), starts)
    mean = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
    return {
        "steps": steps[(starts + ends - 1) // 2].tolist(),
        "mean": _rounded(mean),
        "low": _rounded(np.fmin.reduceat(values, starts)),
        "high": _rounded(np.fmax.reduceat(values, starts)),
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    """Values with `DIGITS` significant digits; None for NaN."""
    texts = np.char.mod(f"%.{DIGITS}g", values).tolist()
    return [None if text == "nan" else float(text) for text in texts]
