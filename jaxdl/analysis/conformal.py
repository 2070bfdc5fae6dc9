"""Split conformal prediction: sets of classes and intervals that cover with a given probability.

Of exchangeable examples, a set or an interval contains the truth with a probability of at least
1 - alpha, whatever the model. The probability is over calibration and test examples together.

Shapes: N examples, K classes.
"""

import math

import numpy as np

ALPHA = 0.1  # allowed probability of a miss


def threshold(scores: np.ndarray, alpha: float = ALPHA) -> float:
    """Threshold of the scores of nonconformity (Vovk et al., 2005).

    Args:
      scores: scores of the calibration examples, [N].
      alpha: allowed probability that the score of a new example is larger.

    Returns:
      The ceil((N + 1) (1 - alpha))-th smallest score; infinity if there are too few examples.

    >>> threshold(np.arange(1.0, 20.0), 0.1)
    18.0
    """
    rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def least_ambiguous(log_p: np.ndarray) -> np.ndarray:
    """Scores 1 - p of all classes [N, K] (Sadinle et al., 2019), which give the smallest sets.

    Args:
      log_p: logarithms of probabilities [N, K].
    """
    return 1 - np.exp(log_p)


def adaptive(log_p: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Scores of adaptive prediction sets (Romano et al., 2020), larger for hard examples.

    Args:
      log_p: logarithms of probabilities [N, K].
      uniform: uniform numbers from 0 to 1, [N], which make the coverage exact.

    Returns:
      For each class the probability of all likelier classes, and a random share of its own, [N, K].
    """
    p = np.exp(log_p)
    order = np.argsort(-p, axis=1, kind="stable")
    ordered = np.take_along_axis(p, order, axis=1)
    values = np.cumsum(ordered, axis=1) - (1 - uniform[:, None]) * ordered
    scores = np.empty_like(p)
    np.put_along_axis(scores, order, values, axis=1)
    return scores


def of_targets(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Scores [N] of the true classes.

    Args:
      scores: scores of all classes [N, K].
      targets: true classes, int [N].
    """
    return scores[np.arange(len(targets)), targets]


def sets(scores: np.ndarray, limit: float) -> np.ndarray:
    """Prediction sets: True for each class whose score is at most the threshold, bool [N, K]."""
    return scores <= limit


def coverage(members: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Share of examples whose set has the true class, and the mean size of the sets.

    Args:
      members: prediction sets, bool [N, K].
      targets: true classes, int [N].
    """
    return float(np.mean(of_targets(members, targets))), float(np.mean(np.sum(members, axis=1)))


def half_width(predictions: np.ndarray, targets: np.ndarray, alpha: float = ALPHA) -> float:
    """Half the width of the intervals around the predictions of a regression.

    Args:
      predictions: predicted numbers of the calibration examples, [N].
      targets: true numbers, [N].
      alpha: allowed probability of a miss.
    """
    return threshold(np.abs(np.asarray(targets, np.float64) - predictions), alpha)
