"""Metrics of rankings, which need the scores of all examples at once: ROC AUC, average precision.

Evaluation joins the scores of all batches on the host, so that the values are exact over any
batches. Ties count as in scikit-learn.

Shapes: B examples of a batch, N of a split, C scores of an example.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl.errors import UserError

LARGEST_GATHERED = 100_000_000  # scores that an evaluation keeps in memory, 400 MB of float32


class Gathered(NamedTuple):
    """Metric of a ranking, which needs the scores of all examples at once.

    Evaluation joins the rows of all batches and calls `value` once, so that the result does not
    depend on the batches. It is not for training. A subclass defines `value`.

    Attributes:
      scores: float32 [B, C]; a greater score of a class makes it more probable.
      targets: class indices, int32 [B], or 1 for each class that is true, else 0, [B, C].
      mask: [B], 1 for examples and 0 for padding.
    """

    scores: jax.Array
    targets: jax.Array
    mask: jax.Array

    @staticmethod
    def value(scores: Any, targets: Any, mask: Any) -> np.ndarray:
        """Value of the metric for the rows of all examples, arrays of NumPy."""
        raise NotImplementedError


def separate(metrics: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Gathered]]:
    """Separates the metrics that add up from those that need the rows of all examples."""
    gathered = {name: v for name, v in metrics.items() if isinstance(v, Gathered)}
    return {name: v for name, v in metrics.items() if name not in gathered}, gathered


def joined(parts: Sequence[dict[str, Gathered]]) -> dict[str, Gathered]:
    """Joins the rows of batches that are on the host."""
    return jax.tree.map(lambda *rows: np.concatenate(rows), *parts) if parts else {}


def check_additive(metrics: Mapping[str, Any]) -> None:
    """Checks that metrics of training add up, as their rows would have no end.

    Raises:
      UserError: one of them is `Gathered`.
    """
    for name in separate(metrics)[1]:
        raise UserError(
            f"the metric {name} needs the rows of all examples, so it is for evaluation only: give "
            "`supervised` a train_metrics_fn without it"
        )


def check_gathered(metrics: Mapping[str, Any], examples: int) -> None:
    """Checks that the rows of a split fit into the host's memory.

    Args:
      metrics: metrics of a batch, or their shapes.
      examples: number of examples of the split, N.

    Raises:
      UserError: a metric has more than LARGEST_GATHERED scores.
    """
    for name, rows in separate(metrics)[1].items():
        scores = examples * rows.scores.shape[-1]
        if scores > LARGEST_GATHERED:
            raise UserError(
                f"the metric {name} keeps {scores:,} scores of {examples:,} examples in memory, "
                f"and at most {LARGEST_GATHERED:,} are allowed: leave it out, or evaluate fewer "
                "examples"
            )


def roc_auc(scores: np.ndarray, targets: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, one class against the others; arguments as in `Gathered`.

    It is the probability that an example of the class has a greater score than another one, where a
    tie counts a half.

    Returns:
      Mean over the classes that have examples and counterexamples; 0.5 without such a class, and
      NaN if a score is NaN.

    >>> float(roc_auc(np.array([[0.1], [0.4], [0.4]]), np.array([[0], [1], [0]]), np.ones(3)))
    0.75
    """

    def area(hits: np.ndarray, false_alarms: np.ndarray) -> float:
        return float(np.trapezoid(hits, false_alarms)) / (hits[-1] * false_alarms[-1])

    return _rank(scores, targets, mask, area, least_others=1, otherwise=0.5)


def average_precision(scores: np.ndarray, targets: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Average precision, one class against the others; arguments as in `Gathered`.

    It is the sum of the precision at each threshold, weighted by the increase in recall. Examples
    with equal scores share a threshold.

    Returns:
      Mean over the classes that have examples; 0 without such a class, and NaN if a score is NaN.

    >>> float(average_precision(np.array([[0.9], [0.5]]), np.array([[0], [1]]), np.ones(2)))
    0.5
    """

    def average(hits: np.ndarray, false_alarms: np.ndarray) -> float:
        found, alarms = hits[1:], false_alarms[1:]
        return float(np.sum(np.diff(hits) * found / (found + alarms))) / hits[-1]

    return _rank(scores, targets, mask, average, least_others=0, otherwise=0.0)


def _gathered(value: Callable[..., np.ndarray]) -> Any:
    """Makes the type of a metric whose value is a function of the rows of all examples."""
    return type("Ranked", (Gathered,), {"value": staticmethod(value)})


def _rank(
    scores: np.ndarray,
    targets: np.ndarray,
    mask: np.ndarray,
    measure: Callable[[np.ndarray, np.ndarray], float],
    least_others: int,
    otherwise: float,
) -> np.ndarray:
    """Mean over classes of a function of the ranking of all examples by the score of a class.

    Args:
      scores: [N, C].
      targets: [N] or [N, C].
      mask: [N].
      measure: (hits [T], false alarms [T]) -> number: examples of the class and others whose score
        is at least the t-th largest one. Both begin with 0.
      least_others: number of counterexamples that a class needs to count.
      otherwise: the value if no class counts.
    """
    scores, targets = scores[mask > 0], targets[mask > 0]
    if np.isnan(scores).any():
        return np.asarray(np.nan)
    if targets.ndim == 1:
        # With a single score, it is that of the second of two classes.
        classes = np.arange(scores.shape[1]) if scores.shape[1] > 1 else np.ones(1)
        targets = targets[:, None] == classes
    values = []
    for score, is_class in zip(scores.T, targets.T > 0.5, strict=True):
        if not is_class.any() or np.sum(~is_class) < least_others:
            continue
        order = np.argsort(-score)
        ranked = score[order]
        last = np.append(ranked[1:] != ranked[:-1], True)  # the last example of each threshold
        hits = np.cumsum(is_class[order])[last]
        seen = np.flatnonzero(last) + 1
        values.append(measure(np.append(0, hits), np.append(0, seen - hits)))
    return np.asarray(np.mean(values) if values else otherwise)


RANKED = {"roc_auc": _gathered(roc_auc), "average_precision": _gathered(average_precision)}
