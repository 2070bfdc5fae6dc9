"""Halving and Hyperband: decisions like those of plain loops."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxdl.errors import TrainingError
from jaxdl.sweep import halving
from jaxdl.sweep.curve import Curve
from jaxdl.sweep.study import Search


class Table:
    """Study of trials whose values at each step are in a table."""

    def __init__(self, table, eta, seeds, better, num_steps=0):
        self.search = Search("halving", eta, 1)
        self.better, self.table = better, table
        self.configs = {
            f"{n // seeds}-{n % seeds}": {
                "rate": n // seeds,
                "seed": n % seeds,
                "num_steps": num_steps,
            }
            for n in range(len(table))
        }
        self.names = list(self.configs)

    def line(self, name):
        return {"config": self.configs[name]}

    def curve(self, name, step):
        row = self.table[self.names.index(name)]
        if math.isnan(row[0]):
            return None
        points = [(n + 1, float(value)) for n, value in enumerate(row)]
        return Curve("loss", self.better, len(row), points, {})


def reference(table, eta, seeds, better):
    """Successive halving of Jamieson & Talwalkar by plain loops; settings by rung."""
    sign = -1 if better == "max" else 1
    costs = sign * table.reshape(-1, seeds, table.shape[1])
    left, step, rungs = list(range(len(costs))), 1, []
    while len(left) > 1:
        rungs.append((step, left))
        found = []
        for setting in left:
            seen = [
                costs[setting, seed, : min(step, costs.shape[2])].min() for seed in range(seeds)
            ]
            found.append(math.fsum(seen) / seeds)
        order = np.argsort(found, kind="stable")  # nan comes last
        count = max(1, len(left) // eta)
        kept = [left[n] for n in order[:count] if not math.isnan(found[n])]
        if not kept:
            return rungs, None
        left, step = sorted(kept), step * eta
    return rungs, left[0]


def rounds_of(study):
    """The rounds of a halving, and the error that ended it."""
    found = []
    try:
        found.extend(halving.halving(study))
    except TrainingError as error:
        return found, error
    return found, None


@given(
    st.integers(1, 30),
    st.integers(2, 5),
    st.integers(1, 3),
    st.sampled_from(["min", "max"]),
    st.integers(0, 10**6),
)
def test_rungs_are_those_of_plain_loops(settings, eta, seeds, better, key):
    generator = np.random.default_rng(key)
    # Few values, so that many are equal; rows of nan are trials that failed.
    table = generator.integers(0, 5, (settings * seeds, 30)).astype(float)
    table[generator.random(len(table)) < 0.2] = np.nan
    wanted, winner = reference(table, eta, seeds, better)
    found, error = rounds_of(Table(table, eta, seeds, better))
    if winner is None:
        assert "has a finite value" in str(error)
    else:
        last = found.pop()
        assert set(last.values()) == {None}
        assert {int(name.split("-")[0]) for name in last} == {winner}
    assert found == [
        {f"{setting}-{seed}": step for setting in left for seed in range(seeds)}
        for step, left in wanted
    ]


@given(st.integers(1, 100), st.integers(1, 5), st.integers(2, 4))
def test_brackets_are_dealt_all_trials_by_their_weights(count, brackets, eta):
    weights = halving.bracket_weights(brackets, eta)
    hands = halving.deal(count, weights)
    assert sorted(n for hand in hands for n in hand) == list(range(count))
    for hand, weight in zip(hands, weights, strict=True):
        assert abs(len(hand) - count * weight / sum(weights)) < brackets
    assert halving.deal(count, weights) == hands


def test_brackets_are_those_of_the_paper():
    # Table 1 of Li et al., for R = 81 and eta = 3.
    assert halving.bracket_weights(5, 3) == [81, 34, 15, 8, 5]
    assert halving.first_rungs(81, 1, 3) == [1, 3, 9, 27, 81]


def test_hyperband_is_a_halving_of_each_bracket():
    generator = np.random.default_rng(0)
    table = generator.random((20, 27))
    study = Table(table, 3, 1, "min", num_steps=27)
    found = list(halving.hyperband(study))
    hands = halving.deal(20, [27, 12, 6, 4])
    for hand, first in zip(hands, [1, 3, 9, 27], strict=True):
        left, step = hand, first
        for targets in found:
            own = {n: targets[f"{n}-0"] for n in hand if f"{n}-0" in targets}
            assert own == dict.fromkeys(left, step if len(left) > 1 else None)
            if len(left) > 1:
                best = sorted(left, key=lambda n: table[n, :step].min())
                left, step = sorted(best[: max(1, len(left) // 3)]), step * 3
