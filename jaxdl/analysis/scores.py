"""Aggregate scores of agents over runs and environments (Agarwal et al., 2021).

Shapes: N scores of all runs of an agent, T thresholds, R resamples.
"""

import numpy as np

from jaxdl.analysis.statistics import bootstrap_interval


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean of the middle half of the scores [..., N], of all environments together.

    >>> float(interquartile_mean(np.array([0.0, 4.0, 6.0, 1000.0])))
    5.0
    """
    cut = scores.shape[-1] // 4
    return np.mean(np.sort(scores, axis=-1)[..., cut : scores.shape[-1] - cut], axis=-1)


def pooled_interquartile_mean(*strata: np.ndarray) -> np.ndarray:
    """Interquartile mean of the scores of several environments, arrays [..., n] each."""
    return interquartile_mean(np.concatenate(strata, axis=-1))


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Fraction of runs whose score is greater than each threshold.

    Args:
      scores: scores [..., N].
      thresholds: thresholds [T], in ascending order.

    Returns:
      Fractions [..., T].

    >>> performance_profile(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0])).round(2).tolist()
    [1.0, 0.33]
    """
    return np.stack([np.mean(scores > threshold, axis=-1) for threshold in thresholds], axis=-1)


def profile_with_band(
    strata: list[np.ndarray], thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Performance profile of an agent, and its pointwise 95 % stratified bootstrap band.

    Args:
      strata: scores [n] of the runs in each environment.
      thresholds: thresholds [T], in ascending order.

    Returns:
      The profile and both ends of the band, [T] each.
    """

    def profile(*resampled: np.ndarray) -> np.ndarray:
        return performance_profile(np.concatenate(resampled, axis=-1), thresholds)

    low, high = bootstrap_interval(strata, profile)
    return profile(*strata), low, high


def normalized(groups: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Scores of several agents on a scale of 0 to 1 in each environment.

    0 is the lowest score of any run in the environment, and 1 the highest; if all are equal, each
    is 1.

    Args:
      groups: for each agent, its scores [n] in each environment, which all agents share.
    """
    scaled: list[list[np.ndarray]] = [[] for _ in groups]
    for strata in zip(*groups, strict=True):
        low, high = (end(np.concatenate(strata)) for end in (np.min, np.max))
        for scores, own in zip(scaled, strata, strict=True):
            scores.append((own - low) / (high - low) if high > low else np.ones_like(own))
    return scaled
