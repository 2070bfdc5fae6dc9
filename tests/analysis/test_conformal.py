"""Conformal sets: thresholds and scores by loops, coverage over a hundred splits."""

import math

import numpy as np
import pytest
from scipy import special

from jaxdl.analysis import conformal


def examples(n, seed=0, classes=6):
    random = np.random.default_rng(seed)
    logits = 1.5 * random.normal(size=(n, classes))
    p = special.softmax(logits, axis=1)
    targets = (p.cumsum(axis=1) < random.random((n, 1))).sum(axis=1)
    return special.log_softmax(1.8 * logits, axis=1), np.minimum(targets, classes - 1)


@pytest.mark.parametrize("n", [1, 9, 10, 19, 100])
def test_the_threshold_is_that_of_a_loop(n):
    scores = np.random.default_rng(n).random(n)
    for alpha in (0.05, 0.1, 0.5):
        # The smallest score that is at least as large as enough of the others and a new one.
        wanted = [s for s in sorted(scores) if np.sum(scores <= s) >= (n + 1) * (1 - alpha) - 1e-9]
        assert conformal.threshold(scores, alpha) == (wanted[0] if wanted else math.inf)


def test_adaptive_scores_are_those_of_a_loop():
    log_p, _ = examples(20)
    uniform = np.random.default_rng(1).random(20)
    found = conformal.adaptive(log_p, uniform)
    for n, row in enumerate(np.exp(log_p)):
        for k, p in enumerate(row):
            likelier = sum(other for other in row if other > p)
            assert found[n, k] == pytest.approx(likelier + uniform[n] * p)


@pytest.mark.parametrize("kind", ["least_ambiguous", "adaptive"])
def test_sets_cover_nine_of_ten(kind):
    log_p, targets = examples(4000)
    random = np.random.default_rng(2)
    uniform = random.random(4000)
    scores = conformal.adaptive(log_p, uniform)
    if kind == "least_ambiguous":
        scores = conformal.least_ambiguous(log_p)
    coverages = []
    for _ in range(100):
        order = random.permutation(4000)
        here, there = order[:2000], order[2000:]
        limit = conformal.threshold(conformal.of_targets(scores[here], targets[here]))
        members = conformal.sets(scores[there], limit)
        coverages.append(conformal.coverage(members, targets[there])[0])
    assert np.mean(coverages) == pytest.approx(0.9, abs=0.006)


def test_intervals_cover_nine_of_ten():
    random = np.random.default_rng(0)
    predictions = random.normal(size=4000)
    targets = predictions + random.standard_t(3, size=4000)  # far from normal errors
    coverages = []
    for _ in range(100):
        order = random.permutation(4000)
        here, there = order[:2000], order[2000:]
        half = conformal.half_width(predictions[here], targets[here])
        coverages.append(np.mean(np.abs(targets[there] - predictions[there]) <= half))
    assert np.mean(coverages) == pytest.approx(0.9, abs=0.006)


def test_too_few_examples_give_all_classes():
    log_p, targets = examples(5)
    limit = conformal.threshold(conformal.least_ambiguous(log_p)[np.arange(5), targets])
    assert limit == math.inf
    assert conformal.coverage(conformal.sets(log_p, limit), targets) == (1.0, 6.0)
