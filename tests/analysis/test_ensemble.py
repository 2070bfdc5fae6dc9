"""Averaged predictions and their metrics, against SciPy and scikit-learn."""

import numpy as np
import pytest
from scipy import special
from sklearn import metrics

from jaxdl.analysis import ensemble


def logits(*shape):
    return 3 * np.random.default_rng(0).normal(size=shape)


def test_probabilities_of_classes_are_scipys():
    x = logits(7, 4)
    found = ensemble.log_probabilities(x, "logits")
    np.testing.assert_allclose(found, special.log_softmax(x, axis=1), rtol=1e-12)
    one = logits(7, 1)
    found = np.exp(ensemble.log_probabilities(one, "logits"))
    np.testing.assert_allclose(found[:, 1:], special.expit(one), rtol=1e-12)
    found = ensemble.log_probabilities(x, "labels")
    np.testing.assert_allclose(np.exp(found[1]), special.expit(x), rtol=1e-12)
    np.testing.assert_allclose(np.exp(found).sum(axis=0), 1, rtol=1e-12)
    assert np.isfinite(ensemble.log_probabilities(np.array([[1e4, -1e4]]), "logits")).all()


@pytest.mark.parametrize("kind", ["logits", "labels"])
def test_an_ensemble_has_the_mean_of_the_probabilities(kind):
    members = [ensemble.log_probabilities(x, kind) for x in logits(3, 5, 4)]
    found = np.exp(ensemble.average(members, kind))
    np.testing.assert_allclose(found, np.mean(np.exp(members), axis=0), rtol=1e-12)


def test_an_ensemble_has_the_mean_of_the_numbers():
    x = logits(3, 5)
    np.testing.assert_allclose(ensemble.average(list(x), "numbers"), x.mean(axis=0))


def test_metrics_of_classes_are_scikit_learns():
    log_p = ensemble.log_probabilities(logits(200, 4), "logits")
    y = np.random.default_rng(1).integers(0, 4, 200).astype(np.int32)
    found = ensemble.measure(log_p, y, "logits", ["f1_macro"])
    p = np.exp(log_p)
    expected = {
        "accuracy": metrics.accuracy_score(y, p.argmax(axis=1)),
        "f1_macro": metrics.f1_score(y, p.argmax(axis=1), average="macro"),
        "cross_entropy": metrics.log_loss(y, p),
        "brier": np.mean(np.sum((p - np.eye(4)[y]) ** 2, axis=1)),
    }
    assert found == pytest.approx(expected, rel=1e-6)


def test_metrics_of_labels_are_scikit_learns():
    log_p = ensemble.log_probabilities(logits(200, 3), "labels")
    y = np.random.default_rng(1).integers(0, 2, (200, 3)).astype(np.float32)
    found = ensemble.measure(log_p, y, "labels")
    p = np.exp(log_p[1])
    expected = {
        "accuracy": np.mean((p > 0.5) == (y > 0.5)),
        "cross_entropy": np.mean([metrics.log_loss(y[:, k], p[:, k]) for k in range(3)]),
        "brier": 3 * np.mean([metrics.brier_score_loss(y[:, k], p[:, k]) for k in range(3)]),
    }
    assert found == pytest.approx(expected, rel=1e-6)


def test_metrics_of_numbers_are_scikit_learns():
    predictions, y = logits(2, 100)
    found = ensemble.measure(predictions, y, "numbers")
    expected = {
        "error": metrics.mean_absolute_error(y, predictions),
        "rmse": metrics.root_mean_squared_error(y, predictions),
        "r_squared": metrics.r2_score(y, predictions),
    }
    assert found == pytest.approx(expected, rel=1e-9)
