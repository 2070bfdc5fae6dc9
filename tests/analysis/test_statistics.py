"""Each test and interval against SciPy, or against figures of statsmodels 0.15.0 (SciPy 1.17.1)."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from jaxdl.analysis import statistics

A = np.array([0.9921, 0.9914, 0.9923, 0.9917, 0.9926])
B = np.array([0.9927, 0.9925, 0.9928, 0.9921, 0.9931])
C = np.array([0.9931, 0.9918, 0.9940])


def draws(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 3), (5, 5), (3, 10), (20, 7)])
def test_welchs_test_and_its_interval_are_scipys(n, m):
    a, b = draws(50, n), 0.5 + 2 * draws(50, m, seed=1)
    estimate = statistics.difference(a, b)
    expected = stats.ttest_ind(b, a, axis=-1, equal_var=False)
    np.testing.assert_allclose(statistics.t_test(estimate), expected.pvalue, rtol=1e-9)
    for found, wanted in zip(
        statistics.t_interval(estimate), expected.confidence_interval(0.95), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-7)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_paired_test_and_its_interval_are_scipys(n):
    a, b = draws(50, n), 0.5 + 2 * draws(50, n, seed=1)
    estimate = statistics.difference(a, b, paired=True)
    expected = stats.ttest_rel(b, a, axis=-1)
    np.testing.assert_allclose(statistics.t_test(estimate), expected.pvalue, rtol=1e-9)
    for found, wanted in zip(
        statistics.t_interval(estimate), expected.confidence_interval(0.95), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-7)


def test_the_interval_of_a_mean_is_scipys():
    expected = stats.ttest_1samp(A, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose(statistics.t_interval(statistics.mean_of(A)), expected, rtol=1e-12)


def test_welchs_test_is_that_of_statsmodels():
    """CompareMeans(B, A).ttest_ind and .tconfint_diff, usevar="unequal"."""
    p = [float(statistics.t_test(statistics.difference(A, x))) for x in (B, C)]
    np.testing.assert_allclose(p, [0.05276740018499983, 0.27288290618731387], rtol=1e-9)
    interval = statistics.t_interval(statistics.difference(A, B))
    np.testing.assert_allclose(interval, [-9.5552670675719e-06, 0.0012495552670679238], rtol=1e-6)


def test_equivalence_is_that_of_statsmodels():
    """ttost_ind(x, A, -0.002, 0.002, usevar="unequal") and ttost_paired(B, A, -0.0015, 0.0015)."""
    p = [float(statistics.equivalence_test(statistics.difference(A, x), 0.002)) for x in (B, C)]
    np.testing.assert_allclose(p, [0.0005503607577350657, 0.11751486621742867], rtol=1e-9)
    paired = statistics.equivalence_test(statistics.difference(A, B, paired=True), 0.0015)
    np.testing.assert_allclose(paired, 0.0010440993284208176, rtol=1e-9)


def test_equivalence_agrees_with_the_90_percent_interval():
    estimate = statistics.difference(draws(200, 5), draws(200, 5, seed=1), paired=True)
    low, high = statistics.t_interval(estimate, 0.9)
    inside = (low > -1) & (high < 1)
    assert 0 < inside.sum() < 200
    np.testing.assert_array_equal(statistics.equivalence_test(estimate, 1.0) < 0.05, inside)


def test_hedges_g_is_the_textbooks():
    """Cohen's d times the exact correction; statsmodels has its approximation 1 - 3 / (4 f - 1)."""
    for x, approximate in ((B, 1.3108608485970052), (C, 1.1009058601116708)):
        f = len(A) + len(x) - 2
        pooled = np.sqrt((np.var(A) * len(A) + np.var(x) * len(x)) / f)
        exact = math.gamma(f / 2) / (math.sqrt(f / 2) * math.gamma((f - 1) / 2))
        g = float(statistics.hedges_g(A, x))
        np.testing.assert_allclose(g, exact * (x.mean() - A.mean()) / pooled, rtol=1e-12)
        np.testing.assert_allclose(g, approximate, rtol=5e-3)


def test_hedges_g_has_no_bias():
    a, b = draws(100_000, 4), 1 + draws(100_000, 4, seed=1)
    assert abs(np.mean(statistics.hedges_g(a, b)) - 1) < 0.01


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 3), (4, 6), (5, 5)])
def test_the_permutation_test_is_scipys(n, m):
    a, b = draws(n), 1 + draws(m, seed=1)
    found = statistics.permutation_test(a, b)
    expected = stats.permutation_test(
        (a, b), lambda x, y: abs(x.mean() - y.mean()), alternative="greater", n_resamples=np.inf
    )
    assert found.p == pytest.approx(expected.pvalue, abs=1e-12)
    far = statistics.permutation_test(a, b + 100)
    assert far.p == pytest.approx(far.least, abs=1e-12)


@pytest.mark.parametrize("n", [2, 5, 8])
def test_the_permutation_test_of_pairs_is_scipys(n):
    a, b = draws(n), 0.7 + draws(n, seed=1)
    found = statistics.permutation_test(a, b, paired=True)
    expected = stats.permutation_test(
        (a, b),
        lambda x, y: abs((x - y).mean()),
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
    )
    assert found.p == pytest.approx(expected.pvalue, abs=1e-12)
    assert statistics.permutation_test(a, b + 100, paired=True).p == 2 / 2**n


def test_equal_values_are_counted_once_each():
    """By hand: of the 20 exchanges of 0, 0, 1 and 0, 1, 1, 18 are at least as far apart."""
    a, b = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0])
    pooled = [*a, *b]
    counted = [
        abs(sum(pooled[n] for n in chosen) - 1.5) >= 0.5 - 1e-9
        for chosen in itertools.combinations(range(6), 3)
    ]
    assert statistics.permutation_test(a, b).p == np.mean(counted)


@pytest.mark.parametrize("paired", [False, True])
def test_many_permutations_are_drawn_and_the_same_each_time(paired):
    a, b = draws(30), 0.5 + draws(30, seed=1)
    found = statistics.permutation_test(a, b, paired)
    assert found == statistics.permutation_test(a, b, paired)
    kind = "samples" if paired else "independent"
    expected = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(y - x, axis=axis),
        permutation_type=kind,
        vectorized=True,
        n_resamples=50_000,
        rng=np.random.default_rng(1),
    )
    assert found.p == pytest.approx(expected.pvalue, abs=0.006)  # 4 deviations
    assert statistics.permutation_test(a, b + 100, paired).p == pytest.approx(1 / 50_001, rel=0.01)


def test_the_fewest_runs_of_a_permutation_test():
    for paired in (False, True):
        fewest = statistics.fewest_for_permutation(0.05, paired)
        assert fewest == (6 if paired else 4)
        for n, decides in ((fewest - 1, False), (fewest, True)):
            far = statistics.permutation_test(np.arange(n), 100.0 + np.arange(n), paired)
            assert (far.p <= 0.05) == decides


def test_holms_correction_is_that_of_statsmodels():
    """multipletests([0.01, 0.04, 0.03, 0.005, 0.5], method="holm")."""
    found = statistics.holm([0.01, 0.04, 0.03, 0.005, 0.5])
    np.testing.assert_allclose(found, [0.04, 0.09, 0.09, 0.025, 0.5], rtol=1e-12)
    assert statistics.holm([]).tolist() == []


@pytest.mark.parametrize(
    ("effect", "n", "paired", "alpha", "power"),
    [
        (1.0, 17, False, 0.05, 0.8070367151472196),
        (1.0, 16, False, 0.05, 0.7813977924664225),
        (0.5, 10, False, 0.05, 0.18509565629116606),
        (2.0, 3, False, 0.05, 0.46264081189130635),
        (1.0, 24, False, 0.05 / 3, 0.8318087227506882),
        (1.0, 10, True, 0.05, 0.8030968566327218),
        (0.5, 10, True, 0.05, 0.2931756065140767),
        (2.0, 3, True, 0.05, 0.4707494312784346),
    ],
)
def test_power_is_that_of_statsmodels(effect, n, paired, alpha, power):
    """TTestIndPower().power and TTestPower().power."""
    assert statistics.power(effect, n, paired, alpha) == pytest.approx(power, abs=1e-8)
    assert statistics.power(-effect, n, paired, alpha) == pytest.approx(power, abs=1e-8)


@pytest.mark.parametrize(
    ("effect", "alpha", "independent", "paired"),
    [
        (1.0, 0.05, 16.714722446954024, 9.93785094105438),
        (0.5, 0.05, 63.76561058891169, 33.36713118431779),
        (0.2, 0.05, 393.4056930002526, 198.150820955562),
        (1.0, 0.05 / 3, 22.42396038417776, 13.448739350481981),
    ],
)
def test_numbers_of_seeds_are_those_of_statsmodels(effect, alpha, independent, paired):
    """TTestIndPower().solve_power and TTestPower().solve_power, rounded up."""
    assert statistics.seeds_needed(effect, False, alpha) == math.ceil(independent)
    assert statistics.seeds_needed(effect, True, alpha) == math.ceil(paired)


def test_extreme_effects_have_a_number_of_seeds_or_none():
    for effect in (5.0, 10.0, 20.0, 1e3, 1e300):
        assert statistics.seeds_needed(effect) in (2, 3)
        assert all(0 <= statistics.power(effect, n) <= 1 for n in range(2, 50))
    assert statistics.seeds_needed(0.0) is None
    assert statistics.seeds_needed(0.01) is None


def mean_difference(x, y):
    return np.mean(y, -1) - np.mean(x, -1)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (20, 12)])
def test_the_bootstrap_interval_is_scipys(n, m):
    a, b = draws(n), draws(m, seed=1)
    found = statistics.bootstrap_interval([a, b], mean_difference)
    expected = stats.bootstrap(
        (a, b),
        lambda x, y, axis: np.mean(y, axis=axis) - np.mean(x, axis=axis),
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert found == statistics.bootstrap_interval([a, b], mean_difference)


def test_values_without_a_spread_have_no_t_test():
    same, other = np.full(5, 500.0), np.full(5, 499.0)
    estimate = statistics.difference(same, same)
    assert float(statistics.t_test(estimate)) == 1.0
    estimate = statistics.difference(same, other)
    assert np.isnan(statistics.t_test(estimate))
    assert np.isnan(statistics.t_interval(estimate)).all()
    assert np.isnan(statistics.equivalence_test(estimate, 2.0))
    assert np.isnan(statistics.hedges_g(same, other))
    # Pairs whose differences are equal but for rounding.
    a = np.array([0.1, 0.2, 0.3], np.float32)
    assert statistics.difference(a, a + np.float32(0.1), paired=True).error == 0


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("n", [3, 4, 5, 10])
def test_the_size_of_the_t_test_is_5_percent(n, paired):
    """True size from 100,000 simulated comparisons of equals; a deviation of it is 0.07 %.

    The figures without pairs are those of docs/statistics.md.
    """
    a, b = draws(100_000, n), draws(100_000, n, seed=1)
    size = np.mean(statistics.t_test(statistics.difference(a, b, paired)) <= 0.05)
    true_size = 0.05 if paired else {3: 0.035, 4: 0.041, 5: 0.044, 10: 0.049}[n]
    assert abs(size - true_size) < 0.003


@pytest.mark.parametrize("n", [5, 10, 20])
def test_the_bootstrap_interval_is_too_narrow_for_few_runs(n):
    """The reason why it does not decide, and what docs/statistics.md says of its coverage."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        low, high = statistics.bootstrap_interval([rng.normal(size=n)], lambda x: np.mean(x, -1))
        covered.append(low <= 0 <= high)
    lowest, highest = {5: (0.78, 0.90), 10: (0.86, 0.95), 20: (0.89, 0.97)}[n]
    assert lowest < np.mean(covered) < highest
