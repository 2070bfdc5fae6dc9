"""Tables of `docs/statistics.md`: how often the verdicts of `jaxdl compare` and `reproduce` err.

    python -m experiments.benchmarks.false_verdicts

Both groups are drawn from one distribution, or from normal ones of equal mean. Reproductions are
drawn from normal ones with a common part, and their mean is shifted. Draws have seed 0.
"""

import sys
from collections.abc import Callable

import numpy as np

from jaxdl.analysis import agreement, comparison, statistics
from jaxdl.cli import guard
from jaxdl.tools.command_line import Parser

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
# Distributions of the first and of the second group.
VALUES: dict[str, tuple[Draw, Draw]] = {
    "normal": 2 * (lambda rng, shape: rng.normal(size=shape),),
    "normal, one with 4 times the deviation": (
        lambda rng, shape: rng.normal(size=shape),
        lambda rng, shape: 4 * rng.normal(size=shape),
    ),
    "accuracy 0.98 on 360 examples": 2 * (lambda rng, s: rng.binomial(360, 0.98, s) / 360,),
    "uniform": 2 * (lambda rng, shape: rng.uniform(size=shape),),
    "exponential": 2 * (lambda rng, shape: rng.exponential(size=shape),),
    "returns, of which a fifth of the runs fails": 2
    * (lambda rng, s: np.where(rng.random(s) < 0.2, 100, 500) + 10 * rng.normal(size=s),),
}
SEEDS = (3, 5, 10)  # of reproductions
# True differences in deviations of a run, and correlations of runs with equal seeds.
SHIFTS = ((0.0, 0.0), (0.0, 0.9), (1.0, 0.0), (2.0, 0.0), (2.0, 0.9), (4.0, 0.0))
# Numbers of runs of both groups, and whether they are pairs.
RUNS = (
    *((3, 3, True), (5, 5, True), (10, 10, True)),
    *((3, 3, False), (5, 5, False), (10, 10, False), (3, 10, False)),
)


def false_verdicts(
    values: tuple[Draw, Draw], runs: tuple[int, int, bool], count: int, rng: np.random.Generator
) -> float:
    """Share of comparisons of equal groups that are called different, without a correction.

    Args:
      values: distributions of both groups, of equal means.
      runs: numbers of runs of both groups, and whether they are pairs.
      count: number of comparisons.
      rng: source of the draws.
    """
    n, m, paired = runs
    a, b = values[0](rng, (count, n)), values[1](rng, (count, m))
    p = statistics.t_test(statistics.difference(a, b, paired))
    for row in np.flatnonzero(np.isnan(p)):  # without a spread, as in `comparison.compare_all`
        p[row] = statistics.permutation_test(a[row], b[row], paired).p
    return float(np.mean(p <= statistics.ALPHA))


def reproductions(
    shift: float, correlation: float, n: int, count: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Shares of reproductions that `agreement.judge` calls equal, and different.

    Args:
      shift: true difference of the means, in standard deviations of a run.
      correlation: correlation between the runs of equal seeds.
      n: number of seeds.
      count: number of reproductions.
      rng: source of the draws.
    """
    common, a, b = rng.normal(size=(3, count, n))
    first, second = (
        np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own for own in (a, b)
    )
    estimate = statistics.difference(first, second + shift, paired=True)
    margin = agreement.DEVIATIONS * np.std(first, axis=-1, ddof=1)
    is_equal = statistics.equivalence_test(estimate, margin) <= statistics.ALPHA
    is_different = (statistics.t_test(estimate) <= statistics.ALPHA) & ~is_equal
    return float(np.mean(is_equal)), float(np.mean(is_different))


def found(paired: bool, count: int, rng: np.random.Generator) -> float:
    """Power at the recommended number of runs, for a difference of one standard deviation."""
    n = comparison.recommended_seeds(paired)
    a, b = rng.normal(size=(2, count, n))
    return float(
        np.mean(statistics.t_test(statistics.difference(a, b + 1, paired)) <= statistics.ALPHA)
    )


def coverage(n: int, count: int, rng: np.random.Generator) -> float:
    """Share of bootstrap intervals of the mean of `n` normal values that hold the true mean."""
    ends = [
        statistics.bootstrap_interval([x], lambda drawn: np.mean(drawn, axis=-1))
        for x in rng.normal(size=(count, n))
    ]
    return float(np.mean([low <= 0 <= high for low, high in ends]))


def run(arguments: list[str]) -> None:
    """Prints the table in percent, the power, and the coverage of bootstrap intervals."""
    parser = Parser(
        "python -m experiments.benchmarks.false_verdicts",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("--count", type=int, default=100_000, help="number of comparisons (100000)")
    count = parser.parse_args(arguments).count
    rng = np.random.default_rng(0)
    names = [f"{n} pairs" if paired else f"{n} and {m}" for n, m, paired in RUNS]
    print(f"| values | {' | '.join(names)} |\n| --- {'| --- ' * len(RUNS)}|")
    for name, values in VALUES.items():
        shares = [false_verdicts(values, runs, count, rng) for runs in RUNS]
        print(f"| {name} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |")
    for paired in (False, True):
        print(f"power, {'pairs' if paired else 'no pairs'}: {found(paired, count, rng):.3f}")
    for n in (3, 5, 10, 20):
        share = coverage(n, max(1, count // 25), rng)
        print(f"bootstrap intervals of {n} runs cover {100 * share:.0f} %")
    print(f"| shift | correlation | {' | '.join(f'{n} seeds' for n in SEEDS)} |")
    print(f"| --- | --- {'| --- ' * len(SEEDS)}|")
    for shift, correlation in SHIFTS:
        pairs = [reproductions(shift, correlation, n, count, rng) for n in SEEDS]
        texts = [f"{100 * equal:.0f} / {100 * other:.0f}" for equal, other in pairs]
        print(f"| {shift:g} | {correlation:g} | {' | '.join(texts)} |")


if __name__ == "__main__":
    sys.exit(guard(lambda: run(sys.argv[1:])))
