"""Attacks: closed forms of linear models, balls and limits, and what each must find."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import attacks, losses
from jaxdl.errors import UserError

RANDOM = np.random.RandomState(0)
X = jnp.asarray(RANDOM.uniform(75, 175, (4, 6, 5, 2)), jnp.float32)
W = jnp.asarray(RANDOM.normal(size=(6, 5, 2)), jnp.float32)


def linear(x):
    return jnp.sum(x * W[None], axis=(1, 2, 3))


def test_fgsm_of_a_linear_score_in_closed_form():
    found = jax.jit(lambda x, e: attacks.fgsm(linear, x, e))(X, 7.0)
    np.testing.assert_allclose(found, X + 7 * jnp.sign(W)[None], rtol=1e-6)
    gain = linear(found) - linear(X)
    np.testing.assert_allclose(gain, 7 * np.sum(np.abs(W)), rtol=1e-4)
    limited = attacks.fgsm(linear, X, 7.0, (0.0, 150.0))
    np.testing.assert_allclose(limited, np.clip(found, 0, 150), rtol=1e-6)


def test_fgsm_of_logistic_regression():
    """The gradient of -log sigmoid(y z) is -y w times a positive number."""
    labels = jnp.asarray([0, 1, 1, 0])
    loss = lambda x: losses.cross_entropy(  # noqa: E731
        jnp.stack([jnp.zeros(4), linear(x) / 100], axis=1), labels
    )
    found = attacks.fgsm(loss, X, 3.0)
    sign = jnp.where(labels == 1, -1.0, 1.0)[:, None, None, None]
    np.testing.assert_allclose(found, X + 3 * sign * jnp.sign(W)[None], rtol=1e-6)


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_pgd_of_a_linear_score_reaches_the_best_point(norm):
    found = jax.jit(
        lambda x, e: attacks.pgd(linear, x, e, jax.random.key(0), norm=norm, steps=30, restarts=2)
    )(X, 8.0)
    best = 8 * np.sum(np.abs(W)) if norm == "inf" else 8 * np.linalg.norm(np.asarray(W).ravel())
    np.testing.assert_allclose(linear(found) - linear(X), best, rtol=3e-2)


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_pgd_stays_in_its_ball_and_limits(norm):
    loss = lambda x: jnp.sum(jnp.sin(x / 9) * W[None], axis=(1, 2, 3))  # noqa: E731
    found = attacks.pgd(loss, X, 20.0, jax.random.key(1), norm=norm, limits=(70.0, 180.0))
    change = np.asarray(found - X).reshape(4, -1)
    if norm == "inf":
        assert np.max(np.abs(change)) <= 20 + 1e-4
    else:
        assert np.all(np.linalg.norm(change, axis=1) <= 20 + 1e-3)
    assert np.all((found >= 70) & (found <= 180))
    assert np.all(loss(found) >= loss(X))


def test_more_starts_find_no_less():
    loss = lambda x: jnp.sum(jnp.sin(x) * W[None], axis=(1, 2, 3))  # noqa: E731
    one, four = (attacks.pgd(loss, X, 3.0, jax.random.key(2), steps=5, restarts=n) for n in (1, 4))
    assert np.mean(loss(four)) > np.mean(loss(one))


def test_the_square_attack_needs_no_gradient():
    loss = lambda x: jnp.sum(jnp.round(x) * W[None], axis=(1, 2, 3))  # noqa: E731
    found = attacks.square(loss, X, 8.0, jax.random.key(0), steps=400)
    assert np.max(np.abs(found - X)) <= 8 + 1e-4
    best = 8 * np.sum(np.abs(W))
    assert np.all(loss(found) - loss(X) > 0.5 * best)


@pytest.mark.parametrize(
    ("step", "divisor"),
    [
        *[(0, 1), (10, 1), (11, 2), (50, 2), (51, 4), (200, 4), (201, 8), (500, 8), (501, 16)],
        *[(1000, 16), (1001, 32), (2000, 32), (2001, 64), (4001, 128), (6001, 256), (9999, 512)],
    ],
)
def test_the_squares_shrink_as_in_the_authors_code(step, divisor):
    side = attacks.square_side(step, 10000, 200, 300)
    assert side == min(round(np.sqrt(0.8 / divisor * 200 * 300)), 200)
    assert attacks.square_side(step, 10000, 1, 1) == 1


def test_nothing_changes_at_epsilon_zero():
    for found in (
        attacks.fgsm(linear, X, 0.0),
        attacks.pgd(linear, X, 0.0, jax.random.key(0)),
        attacks.square(linear, X, 0.0, jax.random.key(0), steps=3),
    ):
        np.testing.assert_array_equal(found, X)


def test_the_margin_is_that_of_a_loop():
    logits, labels = RANDOM.normal(size=(9, 4)).astype(np.float32), RANDOM.randint(0, 4, 9)
    found = attacks.margin(jnp.asarray(logits), jnp.asarray(labels))
    for n in range(9):
        others = [value for k, value in enumerate(logits[n]) if k != labels[n]]
        assert found[n] == pytest.approx(max(others) - logits[n, labels[n]], rel=1e-5)


def test_an_unknown_norm_is_refused():
    with pytest.raises(UserError, match="choose one of inf, 2"):
        attacks.pgd(linear, X, 1.0, jax.random.key(0), norm="1")


def test_ascent_ends_at_its_last_step():
    """Three steps of a concave loss from the image itself, the last past the maximum."""
    away = lambda x: -jnp.sum(jnp.abs(x - X - 5), axis=(1, 2, 3))  # noqa: E731
    found = attacks.ascend(away, X, X, 9.0, 4.0, steps=3)
    np.testing.assert_allclose(found, X + 4, rtol=1e-6)
    best = attacks.pgd(away, X, 9.0, jax.random.key(0), steps=3, length=4.0)
    assert np.all(away(best) >= away(X))


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_random_starts_are_uniform_in_their_balls(norm):
    x = jnp.full((4000, 2, 2, 1), 100.0)
    change = np.asarray(attacks.random_start(jax.random.key(0), x, 10.0, norm)) - 100
    flat = change.reshape(4000, 4)
    radius = np.abs(flat).max(axis=1) if norm == "inf" else np.linalg.norm(flat, axis=1)
    assert radius.max() <= 10 + 1e-4
    np.testing.assert_allclose(np.mean((radius / 10) ** 4), 0.5, atol=0.02)  # uniform in [0, 1]
    np.testing.assert_allclose(flat.mean(axis=0), 0, atol=0.5)
    start = attacks.random_start(jax.random.key(0), x, 10.0, norm, (97.0, 103.0))
    np.testing.assert_allclose(start, np.clip(change + 100, 97, 103), rtol=1e-6)
