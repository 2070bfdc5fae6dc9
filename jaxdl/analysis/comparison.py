"""Comparisons of groups of runs by a fixed rule, with Holm's correction, and letters for tables.

Two groups are compared in pairs of equal seeds if the smaller group has no seed that the other
lacks, and otherwise as independent samples. The t test decides: that of paired differences, or
Welch's. It is exact for normal values, also of three seeds. If the values have no spread, such as
returns of exactly 500, it is not defined, and the permutation test decides in its place.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxdl.analysis import statistics
from jaxdl.analysis.statistics import ALPHA
from jaxdl.console import decimals

Values = Mapping[int, float]  # the value of each run by its seed
MOST_LETTERS = 26
MOST_ROWS = 50  # of a table, whose rows are all compared with each other


class Comparison(NamedTuple):
    """Comparison of two groups of runs, the second minus the first.

    Attributes:
      part: name of the part of the runs that is compared, such as an environment; may be empty.
      pair: positions of the two groups.
      seeds: common seeds of the pairs; empty without pairs.
      runs: number of runs of each group that are compared.
      estimate: mean difference.
      p: p-value of the test that decides.
      adjusted: the same after Holm's correction for all comparisons.
    """

    part: str
    pair: tuple[int, int]
    seeds: tuple[int, ...]
    runs: tuple[int, int]
    estimate: statistics.Difference
    p: float
    adjusted: float

    @property
    def is_different(self) -> bool:
        """Returns True if the groups are called different, at 5 % for all comparisons."""
        return self.adjusted <= ALPHA


def samples(a: Values, b: Values) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Values of two groups to compare.

    Returns:
      Values [n] of `a`, values [m] of `b`, and the seeds of the pairs. Without pairs there are no
      seeds. With pairs n = m, and runs without a partner are left out.
    """
    common = sorted(a.keys() & b.keys())
    if len(common) == min(len(a), len(b)):
        values = np.array([[group[seed] for seed in common] for group in (a, b)])
        return values[0], values[1], tuple(common)
    return np.array(list(a.values())), np.array(list(b.values())), ()


def compare_all(parts: Mapping[str, Sequence[Values]]) -> list[Comparison]:
    """Compares each group with each other one; groups of one run are left out.

    Args:
      parts: the groups' values by seed, for each part, such as an environment. Holm's correction is
        for the comparisons of all parts.

    Returns:
      A comparison of each pair of groups that have at least two runs, for each part.
    """
    compared = [
        _compare(part, (i, j), groups[i], groups[j])
        for part, groups in parts.items()
        for i, j in itertools.combinations(range(len(groups)), 2)
        if min(len(groups[i]), len(groups[j])) > 1
    ]
    adjusted = statistics.holm([one.p for one in compared])
    return [one._replace(adjusted=float(p)) for one, p in zip(compared, adjusted, strict=True)]


def _compare(part: str, pair: tuple[int, int], first: Values, second: Values) -> Comparison:
    a, b, seeds = samples(first, second)
    estimate = statistics.difference(a, b, paired=bool(seeds))
    p = float(statistics.t_test(estimate))
    if np.isnan(p):
        p = statistics.permutation_test(a, b, paired=bool(seeds)).p
    return Comparison(part, pair, seeds, (len(a), len(b)), estimate, p, p)


def letters(count: int, compared: Sequence[Comparison]) -> list[str]:
    """Compact letter display of several groups (Piepho, 2004).

    Two groups have a letter in common if and only if their comparison does not call them different.

    Args:
      count: number of groups, the best first.
      compared: comparisons of all of them.

    Returns:
      The letters of each group. All are empty if a group has no comparison, if no groups differ, or
      if more than 26 letters would be needed.
    """
    different = [one.pair for one in compared if one.is_different]
    if not different or len(compared) < count * (count - 1) // 2:
        return [""] * count
    columns = {frozenset(range(count))}
    for i, j in different:
        split = {part for c in columns for part in ((c - {i}, c - {j}) if {i, j} <= c else (c,))}
        columns = {part for part in split if not any(part < other for other in split)}
        if len(columns) > 4 * MOST_LETTERS:
            return [""] * count
    ordered = sorted(columns, key=sorted)
    if len(ordered) > MOST_LETTERS:
        return [""] * count
    return ["".join(chr(97 + n) for n, c in enumerate(ordered) if k in c) for k in range(count)]


class Marks(NamedTuple):
    """Marks of the rows of a table, where tests support them.

    Attributes:
      letters: letters of each row, which are empty if no rows differ.
      is_best: whether the first row differs from all others.
      note: line below the table that says what the letters mean, or why there are none.
    """

    letters: list[str]
    is_best: bool
    note: str


def marks(groups: Sequence[Values]) -> Marks:
    """Marks groups of runs in a table.

    Args:
      groups: values of the runs of each group by seed, the best group first; a group without
        values yet is not compared, and keeps the first from being the best of all.
    """
    count = len(groups)
    complete = [n for n, group in enumerate(groups) if group]
    if len(complete) == 1 < count:
        return Marks(
            [""] * count, False, "one row is complete: there is nothing to compare it with"
        )
    if len(complete) < count:
        inner = marks([groups[n] for n in complete])
        known = dict(zip(complete, inner.letters, strict=True))
        return Marks([known.get(n, "") for n in range(count)], False, inner.note)
    if count < 2:
        return Marks([""] * count, False, "")
    if count > MOST_ROWS:
        note = f"no difference is tested between more than {MOST_ROWS} rows"
        return Marks([""] * count, False, note)
    if min(map(len, groups)) < 2:
        note = (
            "one run has no spread, so no difference is claimed: "
            f"--seed=0..{recommended_seeds(paired=True) - 1} finds one standard deviation with "
            f"power {statistics.POWER}"
        )
        return Marks([""] * count, False, note)
    compared = compare_all({"": groups})
    shown = letters(count, compared)
    best = [one.is_different for one in compared if one.pair[0] == 0]
    if any(shown):
        note = "rows without a common letter differ (t tests, Holm, 5 %)"
    elif any(one.is_different for one in compared):
        note = "rows differ, in more ways than there are letters: see jaxdl compare"
    else:
        note = "no two rows differ (t tests, Holm, 5 %)"
    return Marks(shown, all(best), note)


def recommended_seeds(paired: bool, tests: int = 1) -> int:
    """Number of runs of each group that find a difference of one standard deviation of a run.

    The power is 0.8. Pairs are taken as uncorrelated: if equal seeds give alike results, fewer do.

    Args:
      paired: whether the runs are compared in pairs.
      tests: number of comparisons, for Holm's correction.

    >>> recommended_seeds(paired=False), recommended_seeds(paired=True)
    (17, 18)
    """
    effect = math.sqrt(0.5) if paired else 1.0
    needed = statistics.seeds_needed(effect, paired, ALPHA / tests)
    assert needed is not None  # one standard deviation is large
    return needed


def texts(values: Values) -> tuple[str, str, str]:
    """Mean, 95 % t interval and standard deviation of a group, with the decimals of the error.

    One run has no interval and no deviation, and equal values have no interval: "-".

    >>> texts({0: 0.9919, 1: 0.9914, 2: 0.9925})
    ('0.99193', '[0.99057, 0.99330]', '0.00055')
    """
    runs = np.array(list(values.values()), np.float64)
    if len(runs) < 2:
        return decimals(float(runs[0]), 0.0), "-", "-"
    estimate = statistics.mean_of(runs)
    error = float(estimate.error)
    interval = interval_text(statistics.t_interval(estimate), error)
    return decimals(float(estimate.value), error), interval, f"{np.std(runs, ddof=1):.2g}"


def interval_text(ends: tuple[np.ndarray, np.ndarray], error: float) -> str:
    """Both ends of an interval with the decimals of an error; "-" if there is none."""
    if np.isnan(ends[0]):
        return "-"
    return f"[{decimals(float(ends[0]), error)}, {decimals(float(ends[1]), error)}]"
