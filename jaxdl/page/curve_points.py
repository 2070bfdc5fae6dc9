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
    steps: dict[str, list[int]] = {}
    values: dict[str, list[float]] = {}
    for line in lines:
        split, step = line["split"], line["step"]
        for metric, value in line.items():
            if metric in metrics_log.NON_METRICS:
                continue
            name = f"{split}/{metric}"
            if name not in steps:
                if len(steps) >= MOST_CURVES:
                    continue
                steps[name], values[name] = [], []
            steps[name].append(step)
            values[name].append(value if metrics_log.is_result(value) else np.nan)
    return {name: Points(np.array(steps[name]), np.array(values[name], float)) for name in steps}


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
