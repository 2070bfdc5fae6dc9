"""Calibration: bins by loops, temperatures by a grid, scores by scikit-learn."""

import numpy as np
import pytest
from scipy import special
from sklearn import metrics

from jaxdl.analysis import calibration, ensemble
from jaxdl.errors import UserError


def overconfident(n=4000, classes=5, temperature=2.5, seed=0):
    """Logits that are too large by a temperature, and classes drawn from the right ones."""
    random = np.random.default_rng(seed)
    right = 2 * random.normal(size=(n, classes))
    p = special.softmax(right, axis=1)
    targets = np.array([random.choice(classes, p=row) for row in p])
    return (temperature * right).astype(np.float32), targets


def looped_error(confidence, right, bins):
    total = 0.0
    for n in range(bins):
        inside = [
            (c, r)
            for c, r in zip(confidence, right, strict=True)
            if n / bins < c <= (n + 1) / bins or (n == 0 and c == 0)
        ]
        if inside:
            gap = sum(r for _, r in inside) / len(inside) - sum(c for c, _ in inside) / len(inside)
            total += abs(gap) * len(inside) / len(confidence)
    return total


def looped_adaptive(confidence, right, bins):
    pairs = sorted(zip(confidence, right, strict=True), key=lambda pair: pair[0])
    total = 0.0
    for n in range(bins):
        part = pairs[round(n * len(pairs) / bins) : round((n + 1) * len(pairs) / bins)]
        if part:
            gap = np.mean([r for _, r in part]) - np.mean([c for c, _ in part])
            total += abs(gap) * len(part) / len(pairs)
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error_is_that_of_a_loop(bins):
    random = np.random.default_rng(0)
    confidence = random.random(1001)
    confidence[:20] = np.arange(20) % (bins + 1) / bins  # on the edges
    right = random.random(1001) < confidence**2
    found = calibration.reliability(confidence, right, bins)
    assert found.error() == pytest.approx(looped_error(confidence, right, bins), rel=1e-12)
    assert found.counts.sum() == 1001
    found = calibration.reliability(confidence, right, bins, adaptive=True)
    assert found.error() == pytest.approx(looped_adaptive(confidence, right, bins), rel=1e-12)
    assert np.ptp(found.counts) <= 1


def test_empty_bins_and_few_examples():
    found = calibration.reliability(np.array([1.0, 0.0]), np.array([True, False]))
    assert found.error() == 0
    assert found.counts.tolist() == [1] + 13 * [0] + [1]
    assert np.isnan(found.accuracy[1])
    few = calibration.reliability(np.array([0.7]), np.array([False]), adaptive=True)
    assert few.error() == pytest.approx(0.7)


def test_scores_of_classes_are_scikit_learns():
    logits, targets = overconfident()
    p = special.softmax(logits.astype(np.float64), axis=1)
    found = calibration.scores(logits, targets, "logits")
    assert found["nll"] == pytest.approx(metrics.log_loss(targets, p), rel=1e-9)
    assert found["accuracy"] == metrics.accuracy_score(targets, p.argmax(axis=1))
    assert found["brier"] == pytest.approx(np.mean(np.sum((p - np.eye(5)[targets]) ** 2, 1)))
    right = p.argmax(axis=1) == targets
    assert found["ece"] == pytest.approx(looped_error(p.max(axis=1), right, 15), rel=1e-9)


def test_scores_of_labels_are_scikit_learns():
    random = np.random.default_rng(1)
    logits = random.normal(size=(300, 3)).astype(np.float32)
    targets = (random.random((300, 3)) < special.expit(logits)).astype(np.float32)
    p = special.expit(logits.astype(np.float64)).ravel()
    found = calibration.scores(logits, targets, "labels")
    assert found["nll"] == pytest.approx(metrics.log_loss(targets.ravel(), p), rel=1e-9)
    assert found["brier"] == pytest.approx(2 * metrics.brier_score_loss(targets.ravel(), p))
    assert found["accuracy"] == np.mean((p > 0.5) == (targets.ravel() > 0.5))


@pytest.mark.parametrize("kind", ["logits", "labels"])
def test_the_temperature_is_the_best_of_a_grid(kind):
    logits, targets = overconfident()
    if kind == "labels":
        random = np.random.default_rng(2)
        logits = 3 * random.normal(size=(2000, 2)).astype(np.float32)
        targets = (random.random((2000, 2)) < special.expit(logits / 1.7)).astype(np.float32)
    found = calibration.fit_temperature(logits, targets, kind)
    grid = found * np.exp(np.linspace(-0.1, 0.1, 41))

    def nll(t):
        return calibration.scores(logits.astype(np.float64) / t, targets, kind)["nll"]

    assert np.argmin([nll(t) for t in grid]) == 20
    assert found == pytest.approx(2.5 if kind == "logits" else 1.7, rel=0.1)


def test_a_temperature_changes_no_accuracy_and_mends_the_error():
    logits, targets = overconfident()
    temperature = calibration.fit_temperature(*overconfident(seed=1), "logits")
    before = calibration.scores(logits, targets, "logits")
    after = calibration.scores(logits.astype(np.float64) / temperature, targets, "logits")
    assert after["accuracy"] == before["accuracy"]
    assert before["ece"] > 0.1
    assert after["ece"] < 0.03
    assert after["nll"] < before["nll"]


def test_one_logit_is_the_second_of_two_classes():
    logits = np.random.default_rng(0).normal(size=(50, 1))
    targets = np.arange(50) % 2
    both = np.concatenate([np.zeros_like(logits), logits], axis=1)
    assert calibration.scores(logits, targets, "logits") == pytest.approx(
        calibration.scores(both, targets, "logits")
    )


def test_no_temperature_is_refused():
    logits = np.eye(3)
    with pytest.raises(UserError, match="all of them are right"):
        calibration.fit_temperature(logits, np.arange(3), "logits")
    with pytest.raises(UserError, match="no examples"):
        calibration.fit_temperature(logits[:0], np.arange(0), "logits")


def test_log_probabilities_are_not_changed_by_the_scores():
    log_p = ensemble.log_probabilities(np.eye(3), "logits")
    copy = log_p.copy()
    calibration.predictions(log_p, np.arange(3), "logits")
    np.testing.assert_array_equal(log_p, copy)
