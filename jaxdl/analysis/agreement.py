"""Agreement of a repeated result with the first: equal within a margin, different, or undecided.

Two groups of runs with the same seeds are compared in pairs. A test that finds no difference does
not show that there is none, so equality has a test of its own: two one-sided t tests (Schuirmann,
1987).
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxdl.analysis import statistics
from jaxdl.analysis.statistics import ALPHA, Difference

Values = Mapping[int, float]  # the value of each run by its seed
EQUAL, DIFFERENT, UNDECIDED = "equal", "different", "not decided"
DEVIATIONS = 2.0  # of a run, which the margin is by default


class Agreement(NamedTuple):
    """Verdict on a repeated result.

    Attributes:
      verdict: EQUAL, DIFFERENT or UNDECIDED.
      margin: largest difference that does not matter, in units of the metric; NaN if unknown.
      estimate: mean difference, the second result minus the first; None of one run.
      p_equal: p-value of a difference of at least the margin; NaN if it cannot be tested.
      p_different: p-value of no difference; NaN if it cannot be tested.
    """

    verdict: str
    margin: float
    estimate: Difference | None
    p_equal: float
    p_different: float


def default_margin(values: Values) -> float:
    """Margin of two standard deviations of a run; NaN of one run."""
    runs = np.array(list(values.values()), np.float64)
    return DEVIATIONS * float(np.std(runs, ddof=1)) if len(runs) > 1 else math.nan


def judge(first: Values, second: Values, margin: float) -> Agreement:
    """Judges whether a second group of runs gives the result of the first.

    Both tests are at the level of 5 %. A difference that is significant but surely within the
    margin counts as equal. Values that are the same in both groups, up to the
    rounding of float32, are equal. The values of one run cannot be judged.

    Args:
      first: values of the first group.
      second: values of the second group, for the same seeds.
      margin: largest difference that does not matter; NaN: unknown, so nothing can be equal.
    """
    seeds = sorted(first)
    a, b = (np.array([group[seed] for seed in seeds], np.float64) for group in (first, second))
    if len(seeds) < 2:
        return Agreement(UNDECIDED, margin, None, math.nan, math.nan)
    estimate = statistics.difference(a, b, paired=True)
    if np.allclose(a, b, rtol=statistics.ROUNDING, atol=0.0):
        return Agreement(EQUAL, margin, estimate, math.nan, 1.0)
    p_equal = math.nan
    if not math.isnan(margin):
        p_equal = float(statistics.equivalence_test(estimate, margin))
    p_different = float(statistics.t_test(estimate))
    if math.isnan(p_different):
        p_different = statistics.permutation_test(a, b, paired=True).p
    verdict = EQUAL if p_equal <= ALPHA else DIFFERENT if p_different <= ALPHA else UNDECIDED
    return Agreement(verdict, margin, estimate, p_equal, p_different)
