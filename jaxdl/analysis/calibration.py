"""Calibration of classifiers: reliability, scores of probabilities, and temperature scaling.

Probabilities are `ensemble.log_probabilities`: [N, K] of exclusive classes, or [2, N, K] of
independent labels, each of which counts as one example with two classes.

Shapes: N examples, K classes, M bins.
"""

from typing import NamedTuple

import numpy as np

from jaxdl.analysis import ensemble
from jaxdl.errors import UserError

BINS = 15
LIMITS = (0.01, 100.0)  # of a temperature


class Reliability(NamedTuple):
    """Reliability diagram: examples in bins of their confidence.

    Attributes:
      edges: edges of the bins, [M + 1].
      confidence: mean confidence of the examples of each bin, [M]; NaN if it is empty.
      accuracy: share of them that are right, [M]; NaN if it is empty.
      counts: number of examples of each bin, int [M].
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray

    def error(self) -> float:
        """Expected calibration error: mean of |accuracy - confidence|, weighted by the counts."""
        gap = np.abs(self.accuracy - self.confidence)[self.counts > 0]
        return float(np.sum(gap * self.counts[self.counts > 0]) / np.sum(self.counts))


def predictions(log_p: np.ndarray, targets: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of each prediction, and whether it is right.

    Args:
      log_p: logarithms of probabilities, as of `ensemble.log_probabilities`.
      targets: class indices, int [N]; or 0 and 1 for each label, [N, K].
      kind: "logits" or "labels".

    Returns:
      The probability of the likeliest class, float64 [N], and bool [N]; of labels [N K].
    """
    axis, targets = (0, np.asarray(targets) > 0.5) if kind == "labels" else (1, np.asarray(targets))
    right = np.argmax(log_p, axis=axis) == targets
    return np.exp(np.max(log_p, axis=axis)).ravel(), right.ravel()


def reliability(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS, adaptive: bool = False
) -> Reliability:
    """Reliability diagram (Guo et al., 2017).

    Args:
      confidence: confidence of each prediction, [N], 0 to 1.
      right: whether each prediction is right, bool [N].
      bins: number of bins, M.
      adaptive: bins of equally many examples, instead of equal width.

    >>> reliability(np.array([0.25, 0.75]), np.array([False, True]), bins=2).error()
    0.25
    """
    order = np.argsort(confidence, kind="stable")
    confidence, right = confidence[order], np.asarray(right, np.float64)[order]
    if adaptive:
        ends = np.round(np.arange(bins + 1) * len(confidence) / bins).astype(int)
        inner = confidence[np.minimum(ends[1:-1], len(confidence) - 1)]
        edges = np.concatenate([[0.0], inner, [1.0]])
    else:
        edges = np.arange(bins + 1) / bins
        # A bin contains its upper edge, as in the paper.
        ends = np.searchsorted(confidence, edges, side="right")
        ends[0], ends[-1] = 0, len(confidence)
    count = np.diff(ends)
    sums = [np.concatenate([[0.0], np.cumsum(x)]) for x in (confidence, right)]
    with np.errstate(invalid="ignore"):
        means = [(total[ends[1:]] - total[ends[:-1]]) / count for total in sums]
    return Reliability(edges, means[0], means[1], count)


def scores(logits: np.ndarray, targets: np.ndarray, kind: str) -> dict[str, float]:
    """Scores of a classifier's probabilities.

    Args:
      logits: outputs of a classifier of kind "logits" or "labels", see `task.KINDS`.
      targets: class indices, int [N]; or 0 and 1 for each label, [N, K].
      kind: meaning of the outputs.

    Returns:
      `accuracy`; `nll`, the negative log-likelihood; `brier`; `ece` and `adaptive_ece`, the
      expected calibration errors in 15 bins of equal width and of equal count. NLL and Brier score
      are means over examples, of labels over examples and labels.
    """
    log_p = ensemble.log_probabilities(logits, kind)
    confidence, right = predictions(log_p, targets, kind)
    square = np.square(np.exp(log_p) - _one_hot(log_p, targets, kind))
    return {
        "accuracy": float(np.mean(right)),
        "nll": _nll(log_p, targets, kind),
        "brier": float(np.sum(square) / len(right)),
        "ece": reliability(confidence, right).error(),
        "adaptive_ece": reliability(confidence, right, adaptive=True).error(),
    }


def _one_hot(log_p: np.ndarray, targets: np.ndarray, kind: str) -> np.ndarray:
    if kind == "labels":
        true = np.asarray(targets) > 0.5
        return np.stack([~true, true]).astype(np.float64)
    return np.eye(log_p.shape[1])[targets]


def _nll(log_p: np.ndarray, targets: np.ndarray, kind: str) -> float:
    if kind == "labels":
        return -float(np.mean(np.where(np.asarray(targets) > 0.5, log_p[1], log_p[0])))
    return -float(np.mean(log_p[np.arange(len(targets)), targets]))


def fit_temperature(logits: np.ndarray, targets: np.ndarray, kind: str) -> float:
    """Temperature scaling (Guo et al., 2017): the T whose softmax(logits / T) has the least NLL.

    In exact arithmetic, and in float64 for logits in float32, the order of an example's logits and
    with it the accuracy stays as it is.

    Args:
      logits: outputs of a classifier of kind "logits" or "labels", see `task.KINDS`.
      targets: class indices, int [N]; or 0 and 1 for each label, [N, K].
      kind: meaning of the outputs.

    Raises:
      UserError: there is no example, or the best temperature is not within 0.01 to 100, such as
        where all examples are right.
    """
    from scipy.optimize import minimize_scalar

    if not len(targets):
        raise UserError("no examples to fit a temperature on: keep some for validation")
    logits = np.asarray(logits, np.float64)

    def nll(log_t: float) -> float:
        return _nll(ensemble.log_probabilities(logits / np.exp(log_t), kind), targets, kind)

    low, high = np.log(LIMITS)  # in log T the NLL has one minimum, as it is convex in 1 / T
    best = minimize_scalar(nll, bounds=(low, high), method="bounded", options={"xatol": 1e-8}).x
    if min(nll(low), nll(high)) <= nll(best):
        raise UserError(
            f"no temperature from {LIMITS[0]} to {LIMITS[1]:g} is best for these "
            f"{len(targets):,} examples, such as where all of them are right: give more of them "
            "to the validation split"
        )
    return float(np.exp(best))
