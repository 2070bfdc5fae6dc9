"""Statistics of repeated runs: differences, intervals, tests, effect sizes and numbers of seeds.

Values of runs are on the last axis of an array; other axes are independent problems. Functions that
resample take one problem, and draw from a seed, so their answer is the same each time.

Shapes: n and m runs, R resamples.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

ALPHA = 0.05  # probability of calling equal methods different
POWER = 0.8  # probability of finding a difference, for which a number of seeds is recommended
SEED = 0  # of all resampling
RESAMPLES = 10_000  # of a bootstrap
MOST_EXACT = 50_000  # permutations up to which all are counted; of more, as many are drawn
MOST_DRAWN = 4_000_000  # numbers that are drawn at a time
MOST_SEEDS = 10_000  # largest number of seeds that is recommended
ROUNDING = 1e-7  # of float32: a smaller spread, relative to the values, counts as none


class Difference(NamedTuple):
    """Mean difference between two groups of runs, with its standard error.

    Attributes:
      value: mean difference.
      error: standard error of the difference; 0 if the values have no spread.
      freedom: degrees of freedom of the error.
    """

    value: np.ndarray
    error: np.ndarray
    freedom: np.ndarray


def difference(a: np.ndarray, b: np.ndarray, paired: bool = False) -> Difference:
    """Mean of b minus mean of a; without pairs with the error of Welch (1947).

    Args:
      a: values [..., n].
      b: values [..., m]; with pairs m = n, and a pair has the same position.
      paired: whether the values are pairs, so that the error is that of their differences.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    n, m = a.shape[-1], b.shape[-1]
    value = np.mean(b, -1) - np.mean(a, -1)
    if paired:
        square = np.var(b - a, -1, ddof=1) / n
        freedom = np.full(square.shape, n - 1.0)
    else:
        parts = np.var(a, -1, ddof=1) / n, np.var(b, -1, ddof=1) / m
        square = parts[0] + parts[1]
        weight = parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (m - 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            freedom = np.where(weight > 0, square**2 / weight, n + m - 2.0)
    largest = np.maximum(np.max(np.abs(a), -1), np.max(np.abs(b), -1))
    error = np.sqrt(square)
    return Difference(value, np.where(error > ROUNDING * largest, error, 0.0), freedom)


def mean_of(values: np.ndarray) -> Difference:
    """Mean of values [..., n] with its standard error, as the difference from zero."""
    return difference(np.zeros_like(values), values, paired=True)


def t_test(estimate: Difference) -> np.ndarray:
    """Two-sided p-value of a difference of zero; NaN for a difference without a spread."""
    return np.where(
        (estimate.error == 0) & (estimate.value == 0),
        1.0,
        2 * special.stdtr(estimate.freedom, -np.abs(_ratio(estimate.value, estimate.error))),
    )


def t_interval(estimate: Difference, level: float = 1 - ALPHA) -> tuple[np.ndarray, np.ndarray]:
    """Confidence interval of a difference; NaN without a spread."""
    half = special.stdtrit(estimate.freedom, 0.5 + level / 2) * estimate.error
    half = np.where(estimate.error > 0, half, np.nan)
    return estimate.value - half, estimate.value + half


def equivalence_test(estimate: Difference, margin: float | np.ndarray) -> np.ndarray:
    """P-value of a difference of at least `margin`, by two one-sided t tests (Schuirmann, 1987).

    It is below 0.05 if and only if the 90 % interval lies between -margin and margin.

    Args:
      estimate: the difference.
      margin: smallest difference that matters.

    Returns:
      The larger of the two p-values; NaN without a spread.
    """
    above = special.stdtr(estimate.freedom, -_ratio(estimate.value + margin, estimate.error))
    below = special.stdtr(estimate.freedom, _ratio(estimate.value - margin, estimate.error))
    return np.maximum(above, below)


def _ratio(value: Any, error: np.ndarray) -> np.ndarray:
    return np.where(error > 0, value, np.nan) / np.where(error > 0, error, 1.0)


def pooled_deviation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Common standard deviation of two groups [..., n] and [..., m] about their own means."""
    n, m = a.shape[-1], b.shape[-1]
    squares = (n - 1) * np.var(a, -1, ddof=1) + (m - 1) * np.var(b, -1, ddof=1)
    return np.sqrt(squares / (n + m - 2))


def hedges_g(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Difference of means in standard deviations of a run, without bias (Hedges, 1981).

    Args:
      a: values [..., n].
      b: values [..., m].

    Returns:
      The effect size; NaN without a spread.
    """
    f = a.shape[-1] + b.shape[-1] - 2.0
    correction = math.exp(math.lgamma(f / 2) - math.lgamma((f - 1) / 2)) / math.sqrt(f / 2)
    return correction * _ratio(np.mean(b, -1) - np.mean(a, -1), pooled_deviation(a, b))


class Permutation(NamedTuple):
    """Result of a permutation test.

    Attributes:
      p: two-sided p-value.
      least: smallest p-value that this number of runs can give.
    """

    p: float
    least: float


def permutation_test(
    a: np.ndarray, b: np.ndarray, paired: bool = False, seed: int = SEED
) -> Permutation:
    """Permutation test of the mean difference, which needs no normal distribution.

    Under the hypothesis that both groups are alike, any exchange of values between them (with
    pairs: within a pair) is equally likely. Up to MOST_EXACT exchanges are all counted. Of more,
    MOST_EXACT are drawn, and the p-value (count + 1) / (drawn + 1) is valid too.

    Args:
      a: values [n].
      b: values [m].
      paired: whether the values are pairs.
      seed: seed of the draws.
    """
    n, m = len(a), len(b)
    rng = np.random.default_rng(seed)
    if paired:
        total, least = 2**n, 2 / 2**n
        values = np.asarray(b, np.float64) - a
        means = _sign_flips(values, total, rng)
    else:
        total = math.comb(n + m, n)
        least = (2 if n == m else 1) / total
        values = np.concatenate([b, a]).astype(np.float64)
        means = _exchanges(values, m, total, rng)
    size = np.abs(np.mean(b) - np.mean(a))
    rounding = 1e-12 * max(np.max(np.abs(a)), np.max(np.abs(b)))
    count = sum(int(np.sum(np.abs(part) >= size - rounding)) for part in means)
    if total <= MOST_EXACT:
        return Permutation(count / total, least)
    return Permutation((count + 1) / (MOST_EXACT + 1), max(least, 1 / (MOST_EXACT + 1)))


def _drawn(width: int) -> Iterator[int]:
    """Numbers of permutations to draw at a time, of MOST_EXACT; `width` values each fit memory."""
    size = max(1, MOST_DRAWN // width)
    for start in range(0, MOST_EXACT, size):
        yield min(size, MOST_EXACT - start)


def _sign_flips(
    differences: np.ndarray, total: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yields mean differences after exchanges within pairs, all of them or a sample, in parts."""
    n = len(differences)
    if total <= MOST_EXACT:
        yield (1 - 2 * (np.arange(total)[:, None] >> np.arange(n)[None] & 1)) @ differences / n
        return
    for size in _drawn(n):
        yield (1 - 2 * rng.integers(0, 2, (size, n))) @ differences / n


def _exchanges(
    pooled: np.ndarray, first: int, total: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yields mean differences between `first` of the pooled values and the others, in parts."""
    count = len(pooled)
    scaled = (pooled - np.mean(pooled)) * (1 / first + 1 / (count - first))
    if total <= MOST_EXACT:  # the sum of the others is the negative of that of the chosen
        chosen = np.array(list(itertools.combinations(range(count), first)))
        yield np.sum(scaled[chosen], axis=1)
        return
    for size in _drawn(count):
        chosen = np.argpartition(rng.random((size, count)), first, axis=1)[:, :first]
        yield np.sum(scaled[chosen], axis=1)


def fewest_for_permutation(alpha: float, paired: bool) -> int:
    """Smallest number of runs in each group whose permutation test can give p <= alpha."""
    n = 2
    while (2 / 2**n if paired else 2 / math.comb(2 * n, n)) > alpha:
        n += 1
    return n


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjusted p-values [k] of several tests (Holm, 1979).

    Some true hypothesis has an adjusted p-value of at most 0.05 with probability 0.05 or less.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")
    scaled = np.minimum(p[order] * (len(p) - np.arange(len(p))), 1.0)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(scaled)
    return adjusted


def power(effect: float, n: int, paired: bool = False, alpha: float = ALPHA) -> float:
    """Power of the two-sided t test, from the noncentral t distribution.

    Args:
      effect: true difference, in standard deviations of a run; with pairs, of their differences.
      n: number of pairs, or of runs in each group.
      paired: whether the runs are pairs.
      alpha: significance level.
    """
    freedom = n - 1.0 if paired else 2.0 * n - 2
    shift = abs(effect) * math.sqrt(n if paired else n / 2)
    critical = special.stdtrit(freedom, 1 - alpha / 2)
    below = special.nctdtr(freedom, shift, critical)
    below = 0.0 if math.isnan(below) else below  # the series fails far out, where nothing is below
    other_tail = special.nctdtr(freedom, shift, -critical) if shift < 5 else 0.0  # it fails there
    return float(1 - below + other_tail)


def seeds_needed(effect: float, paired: bool = False, alpha: float = ALPHA) -> int | None:
    """Smallest number of pairs, or of runs in each group, whose t test has a power of 0.8.

    Args:
      effect: as in `power`.
      paired: whether the runs are pairs.
      alpha: significance level.

    Returns:
      The number; None if it is larger than MOST_SEEDS.

    >>> seeds_needed(1.0), seeds_needed(1.0, paired=True)
    (17, 10)
    """
    low, high = 1, 2
    while power(effect, high, paired, alpha) < POWER:
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        found = power(effect, middle, paired, alpha) >= POWER
        low, high = (low, middle) if found else (middle, high)
    return high if high <= MOST_SEEDS else None


def bootstrap_interval(
    samples: Sequence[np.ndarray],
    statistic: Callable[..., np.ndarray],
    level: float = 1 - ALPHA,
    seed: int = SEED,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval of a statistic of several samples (Efron, 1979).

    Each sample is resampled by itself. So samples may be groups, or strata such as the environments
    of an agent (stratified bootstrap).

    Args:
      samples: arrays [n], which may differ in n.
      statistic: function of resampled arrays [R, n], one argument for each sample -> [R, ...].
      level: probability that the interval is to cover.
      seed: seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    drawn = [
        np.asarray(x, np.float64)[rng.integers(0, len(x), (RESAMPLES, len(x)))] for x in samples
    ]
    ends = np.quantile(statistic(*drawn), [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return ends[0], ends[1]
