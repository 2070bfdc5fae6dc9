"""Successive halving and Hyperband: trials pause at rungs, and the best of each rung go on.

Trials that differ only in the seed are one setting, which goes on or stays behind as a whole. A
setting's value at a rung is the mean over its seeds of the best evaluation so far, as a sweep's
report ranks trials by their best evaluations, too. All trials of a rung are there before the first
goes on, so what goes on does not depend on the order in which trials end.

Jamieson & Talwalkar. Non-stochastic best arm identification and hyperparameter optimization.
AISTATS 2016. Li et al. Hyperband: a novel bandit-based approach to hyperparameter optimization.
JMLR 18, 2018.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from jaxdl.console import say
from jaxdl.errors import UserError
from jaxdl.sweep.study import (
    Rounds,
    Setting,
    Study,
    is_larger_better,
    none_left,
    setting_value,
    settings,
)


class Bracket(NamedTuple):
    """Settings that are compared with one another.

    Attributes:
      rung: the step at which they pause next.
      settings: the settings that are left, in their order.
    """

    rung: int
    settings: list[Setting]


def halving(study: Study) -> Rounds:
    """Successive halving: all settings in one bracket, from `min_steps` on."""
    return _rounds(study, [Bracket(study.search.min_steps, settings(study))])


def hyperband(study: Study) -> Rounds:
    """Hyperband: brackets that begin at rungs of their own, the last at the end of the run.

    Raises:
      UserError: the length of the runs is unknown, or has room for one bracket only.
    """
    total, eta, first = total_steps(study), study.search.eta, study.search.min_steps
    if first * eta > total:
        raise UserError(
            f"--min_steps={first}: hyperband needs room for a second rung, and {total} steps have "
            f"none at {first * eta}: give --min_steps={total // eta} or less"
        )
    rungs, everything = first_rungs(total, first, eta), settings(study)
    hands = deal(len(everything), bracket_weights(len(rungs), eta))
    brackets = [
        Bracket(rung, [everything[n] for n in hand])
        for rung, hand in zip(rungs, hands, strict=True)
        if hand
    ]
    return _rounds(study, brackets)


def promoted(values: Sequence[float | None], eta: int, is_larger_better: bool) -> list[int]:
    """Chooses the settings that go on: the best of every `eta`, at least one.

    Args:
      values: value of each setting; None or nan for one that never goes on.
      eta: a rung keeps one of so many.
      is_larger_better: whether a greater value is better.

    Returns:
      Their numbers in ascending order. Of equal values the first goes on.

    >>> promoted([0.3, 0.1, None, 0.1, 0.2, 0.5], eta=3, is_larger_better=False)
    [1, 3]
    """
    sign = -1 if is_larger_better else 1
    ranked = sorted(
        (sign * value, n) for n, value in enumerate(values) if value is not None and value == value
    )
    return sorted(n for _, n in ranked[: max(1, len(values) // eta)])


def first_rungs(total: int, min_steps: int, eta: int) -> list[int]:
    """Returns the first rung of each bracket of Hyperband.

    >>> first_rungs(total=100, min_steps=10, eta=3)
    [10, 30, 100]
    """
    rungs = [min_steps]
    while rungs[-1] * eta <= total:
        rungs.append(rungs[-1] * eta)
    return [*rungs[:-1], total]


def bracket_weights(brackets: int, eta: int) -> list[int]:
    """Returns the sizes of Hyperband's brackets in the paper, the one of the first rung first.

    >>> bracket_weights(5, 3)  # Li et al., table 1
    [81, 34, 15, 8, 5]
    """
    return [-(-brackets * eta**s // (s + 1)) for s in reversed(range(brackets))]


def deal(count: int, weights: Sequence[int]) -> list[list[int]]:
    """Deals numbers to hands whose sizes are proportional to `weights`.

    The numbers are shuffled first, the same way each time, since neighbours in a grid have flags in
    common. Each is then dealt to the hand that lacks most; of equal hands to the first.

    Args:
      count: the numbers are 0 to `count` - 1.
      weights: weight of each hand.

    Returns:
      The numbers of each hand, in ascending order.
    """
    hands: list[list[int]] = [[] for _ in weights]
    shuffled = sorted(range(count), key=lambda n: random.Random(f"deal {n}").random())
    for dealt, number in enumerate(shuffled, 1):
        lacking = [dealt * w / sum(weights) - len(h) for w, h in zip(weights, hands, strict=True)]
        hands[lacking.index(max(lacking))].append(number)
    return [sorted(hand) for hand in hands]


def total_steps(study: Study) -> int:
    """Returns the number of steps of each trial, as far as the flags say it.

    Raises:
      UserError: they do not, or not the same for all trials.
    """
    lengths = {study.line(name)["config"]["num_steps"] for name in study.names}
    if 0 in lengths:
        raise UserError(
            "--search=hyperband needs the length of the runs: give --num_steps instead of epochs"
        )
    if len(lengths) > 1:
        raise UserError("--search=hyperband compares runs of one length: give one --num_steps")
    total: int = lengths.pop()
    return total


def _rounds(study: Study, brackets: list[Bracket]) -> Rounds:
    """Yields rounds until each bracket has one setting left, which is at its end."""
    while True:
        targets: dict[str, int | None] = {}
        for rung, left in brackets:
            stop = rung if len(left) > 1 else None
            targets |= dict.fromkeys((name for setting in left for name in setting), stop)
        yield targets
        if all(len(bracket.settings) == 1 for bracket in brackets):
            return
        brackets = [_next(study, b) if len(b.settings) > 1 else b for b in brackets]


def _next(study: Study, bracket: Bracket) -> Bracket:
    """Returns a bracket with the settings that go on from its rung."""
    rung, left = bracket
    names = [name for setting in left for name in setting]
    curves = {name: study.curve(name, rung) for name in names}
    largest = is_larger_better({(c.metric, c.better) for c in curves.values() if c}, names)
    values = [
        setting_value([one.best(rung) if (one := curves[name]) else None for name in setting])
        for setting in left
    ]
    kept = [left[n] for n in promoted(values, study.search.eta, largest)]
    if not kept:
        raise none_left(names)
    say(f"step {rung}: {len(kept)} of {len(left)} go on")
    return Bracket(rung * study.search.eta, kept)
