"""Similarity of representations, its invariances, and counts by loops."""

import numpy as np
import pytest
from scipy.stats import ortho_group

from jaxdl.analysis import representations

RANDOM = np.random.RandomState(0)
X, Y = RANDOM.normal(size=(60, 8)), RANDOM.normal(size=(60, 5))


def cka(x, y):
    return representations.similarity(representations.gram(x), representations.gram(y))


def test_similarity_is_that_of_the_formula_in_features():
    x, y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    wanted = np.linalg.norm(y.T @ x) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
    assert cka(X, Y) == pytest.approx(wanted)
    assert 0 < wanted < 0.5


def test_similarity_does_not_change_with_rotations_scales_and_shifts():
    rotation = ortho_group.rvs(8, random_state=0)
    assert cka(X, X) == pytest.approx(1)
    assert cka(X, 3 * X @ rotation + 7) == pytest.approx(1)
    assert cka(X[:, RANDOM.permutation(8)], Y) == pytest.approx(cka(X, Y))
    assert cka(-2 * X @ rotation + 1, Y) == pytest.approx(cka(X, Y))
    skewed = X @ np.diag(np.logspace(0, 2, 8))  # not invariant to other linear maps
    assert cka(X, skewed) < 0.9
    assert np.isnan(cka(np.ones((60, 2)), Y))


def test_similarities_of_layers():
    found = representations.similarities({"a": X, "b": Y}, {"a": X, "b": Y, "c": X[:, :1]})
    assert found.shape == (2, 3)
    np.testing.assert_allclose(np.diag(found), 1)
    assert found[0, 1] == pytest.approx(found[1, 0])


def test_neighbours_are_those_of_a_loop():
    labels, wanted = (X[:, 0] > 0).astype(int), (X[:20, 0] > 0.1).astype(int)
    found = representations.neighbours(X, labels, X[:20] + 0.1, wanted)
    right = 0
    for row, true in zip(X[:20] + 0.1, wanted, strict=True):
        nearest = np.argsort(np.linalg.norm(X - row, axis=1))[:5]
        right += (labels[nearest].sum() >= 3) == true
    assert found == right / 20


def test_silent_units_are_counted():
    outputs = RANDOM.normal(size=(10, 3, 6))
    outputs[..., 1] = -np.abs(outputs[..., 1])
    outputs[..., 2] = 0
    outputs[..., 3] = 4
    assert representations.silent_units(outputs) == (2, 2)


def test_pooling_of_large_layers():
    outputs = RANDOM.normal(size=(10, 3, 6))
    np.testing.assert_array_equal(representations.pooled(outputs), outputs.reshape(10, 18))
    np.testing.assert_array_equal(representations.pooled(outputs, 17), outputs.mean(axis=1))
