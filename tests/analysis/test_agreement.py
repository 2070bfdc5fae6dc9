"""Verdicts on repeated results, against SciPy's t tests and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.benchmarks import false_verdicts
from jaxdl.analysis import agreement
from jaxdl.analysis.agreement import DIFFERENT, EQUAL, UNDECIDED, judge

THEN = dict(enumerate([0.9921, 0.9914, 0.9923, 0.9917, 0.9926]))
NOW = dict(enumerate([0.9927, 0.9925, 0.9928, 0.9921, 0.9931]))


def test_p_values_are_those_of_scipy():
    found = judge(THEN, NOW, 0.001)
    a, b = (np.array(list(values.values())) for values in (THEN, NOW))
    assert found.p_different == pytest.approx(stats.ttest_rel(b, a).pvalue)
    sides = [
        stats.ttest_1samp(b - a, bound, alternative=tail).pvalue
        for bound, tail in ((-0.001, "greater"), (0.001, "less"))
    ]
    assert found.p_equal == pytest.approx(max(sides))


@pytest.mark.parametrize(
    ("margin", "verdict"), [(0.0005, DIFFERENT), (0.002, EQUAL), (math.nan, DIFFERENT)]
)
def test_a_significant_difference_is_equal_if_it_is_surely_within_the_margin(margin, verdict):
    assert judge(THEN, NOW, margin).verdict == verdict


def test_without_enough_seeds_nothing_is_decided():
    assert judge({0: 0.5, 1: 0.7}, {0: 0.6, 1: 0.65}, 0.1).verdict == UNDECIDED
    one = judge({0: 0.5}, {0: 0.5}, 1.0)
    assert (one.verdict, one.estimate) == (UNDECIDED, None)
    assert math.isnan(agreement.default_margin({0: 0.5}))


def test_values_without_a_spread():
    same = {seed: 500.0 for seed in range(10)}
    assert judge(same, same, 0.0).verdict == EQUAL
    rounded = {seed: value * (1 + 5e-8) for seed, value in same.items()}
    assert judge(same, rounded, 0.0).verdict == EQUAL
    lower = {seed: 400.0 for seed in range(10)}
    assert judge(same, lower, 1.0).verdict == DIFFERENT  # by the permutation test
    assert judge({0: 500.0, 1: 500.0}, {0: 499.0, 1: 499.0}, 5.0).verdict == UNDECIDED


def test_the_default_margin_is_two_deviations():
    assert agreement.default_margin(THEN) == pytest.approx(2 * np.std(list(THEN.values()), ddof=1))


def test_pairs_are_of_equal_seeds():
    shuffled = dict(sorted(NOW.items(), reverse=True))
    assert judge(THEN, shuffled, 0.001) == judge(THEN, NOW, 0.001)


def test_the_measured_shares_are_those_of_the_rule():
    rng = np.random.default_rng(1)
    equal, different = false_verdicts.reproductions(1.0, 0.0, 5, 400, np.random.default_rng(0))
    verdicts = []
    for a, b in zip(*rng.normal(size=(2, 400, 5)), strict=True):
        then, now = dict(enumerate(a)), dict(enumerate(b + 1.0))
        verdicts.append(judge(then, now, agreement.default_margin(then)).verdict)
    assert verdicts.count(EQUAL) / 400 == pytest.approx(equal, abs=0.14)  # 4 deviations
    assert verdicts.count(DIFFERENT) / 400 == pytest.approx(different, abs=0.12)
