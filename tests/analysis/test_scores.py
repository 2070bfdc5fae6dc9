"""Interquartile means, stratified bootstrap and performance profiles."""

import numpy as np
import pytest
from scipy import stats

from jaxdl.analysis import scores, statistics


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 11])
def test_the_interquartile_mean_is_scipys_trimmed_mean(count):
    values = np.random.default_rng(0).exponential(size=(6, count))
    expected = stats.trim_mean(values, 0.25, axis=-1)
    np.testing.assert_allclose(scores.interquartile_mean(values), expected, rtol=1e-12)


def test_the_stratified_bootstrap_resamples_within_each_environment():
    """Against a loop of NumPy; and a stratum of one value each gives an interval of no width."""
    rng = np.random.default_rng(0)
    strata = [rng.normal(size=5), 3 + rng.normal(size=8)]
    found = statistics.bootstrap_interval(strata, scores.pooled_interquartile_mean)
    drawn = [
        stats.trim_mean(np.concatenate([rng.choice(own, len(own)) for own in strata]), 0.25)
        for _ in range(10_000)
    ]
    np.testing.assert_allclose(found, np.quantile(drawn, [0.025, 0.975]), atol=0.06)
    constant = [np.full(4, 1.0), np.full(4, 3.0)]  # unstratified, its mean would vary
    low, high = statistics.bootstrap_interval(constant, scores.pooled_interquartile_mean)
    assert low == high == 2.0


def test_a_performance_profile_is_the_tail_distribution():
    values = np.random.default_rng(0).normal(size=12)
    thresholds = np.linspace(-3, 3, 7)
    profile, low, high = scores.profile_with_band([values[:5], values[5:]], thresholds)
    np.testing.assert_allclose(profile, 1 - stats.ecdf(values).cdf.evaluate(thresholds))
    assert np.all((low <= profile) & (profile <= high))
    assert np.all(np.diff(profile) <= 0)


def test_scores_are_scaled_over_all_agents_in_each_environment():
    groups = [[np.array([0.0, 500.0]), np.array([-7.0])], [np.array([250.0]), np.array([-7.0])]]
    scaled = scores.normalized(groups)
    assert [[own.tolist() for own in group] for group in scaled] == [
        [[0.0, 1.0], [1.0]],
        [[0.5], [1.0]],
    ]
