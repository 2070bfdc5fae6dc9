"""Curvature against dense Hessians and known spectra; directions and noise in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxdl import losses
from jaxdl.analysis import hessian, landscape
from jaxdl.models.mlp import MLP

KEY = jax.random.key(0)


def problem():
    """Loss of a small network, and its dense Hessian."""
    random = np.random.RandomState(0)
    x = jnp.asarray(random.normal(size=(40, 4)), jnp.float32)
    y = jnp.asarray(random.randint(0, 3, 40))
    model = MLP(hidden=(5,), outputs=3, activation=jnp.tanh)
    params = model.init(KEY, x, train=False)["params"]

    def loss(params):
        logits = model.apply({"params": params}, x, train=False)
        return jnp.mean(losses.cross_entropy(logits, y))

    flat, unravel = ravel_pytree(params)
    dense = np.asarray(jax.hessian(lambda v: loss(unravel(v)))(flat), np.float64)
    return loss, params, dense


def symmetric(values, seed=0):
    """A matrix with the given eigenvalues, as a function of a vector."""
    q, _ = np.linalg.qr(np.random.RandomState(seed).normal(size=(len(values), len(values))))
    dense = jnp.asarray(q * np.asarray(values) @ q.T, jnp.float32)
    return jax.jit(lambda v: dense @ v), len(values)


def test_products_are_those_of_the_dense_hessian():
    loss, params, dense = problem()
    matrix, size = hessian.products(loss, params)
    assert size == len(dense) == 43
    v = np.random.RandomState(1).normal(size=size).astype(np.float32)
    np.testing.assert_allclose(matrix(jnp.asarray(v)), dense @ v, atol=1e-5)


def test_eigenvalues_are_those_of_the_dense_hessian():
    loss, params, dense = problem()
    found = hessian.lanczos(*hessian.products(loss, params)[:1], jnp.asarray(dense[0]) + 1, 43)
    wanted = np.linalg.eigvalsh(dense)
    np.testing.assert_allclose(found.values[-5:], wanted[-5:], rtol=1e-4)
    assert found.values[0] == pytest.approx(wanted[0], abs=1e-4)
    top = found.vectors[-1]
    np.testing.assert_allclose(dense @ top, wanted[-1] * top, atol=1e-4)
    assert found.residuals[-1] < 1e-4
    assert found.weights.sum() == pytest.approx(1)


def test_no_copies_of_an_eigenvalue():
    """Without reorthogonalisation the largest one would be found again and again."""
    matrix, size = symmetric([*np.linspace(0, 1, 99), 100.0])
    found = hessian.lanczos(matrix, hessian.random_vector(KEY, size), 60)
    assert np.sum(found.values > 50) == 1
    assert found.values[-1] == pytest.approx(100, rel=1e-5)


def test_an_exhausted_space_ends_early():
    matrix, size = symmetric([1.0, 1, 1, 2, 2, 2, 5, 5])
    found = hessian.lanczos(matrix, hessian.random_vector(KEY, size), 8)
    np.testing.assert_allclose(found.values, [1, 2, 5], rtol=1e-4)


def test_the_trace_is_that_of_the_dense_hessian():
    loss, params, dense = problem()
    matrix, size = hessian.products(loss, params)
    found = hessian.trace(matrix, size, KEY, probes=size)
    assert found.value == pytest.approx(np.trace(dense), rel=1e-4)
    assert found.error == 0
    found = hessian.trace(matrix, size, KEY, probes=15)
    assert abs(found.value - np.trace(dense)) < 4 * found.error + 1e-4 * np.trace(dense)
    assert found.error < 0.1 * np.trace(dense)


def test_the_trace_of_a_matrix_of_low_rank_is_exact():
    matrix, size = symmetric([*np.zeros(95), 1.0, 2, 3, 4, -5])
    found = hessian.trace(matrix, size, KEY, probes=6)
    assert found.value == pytest.approx(5, abs=1e-4)


def test_the_density_is_that_of_a_known_spectrum():
    values = np.concatenate([np.zeros(150), np.linspace(1, 3, 50)])
    matrix, size = symmetric(values)
    found = hessian.density(matrix, size, KEY, probes=20, steps=30)
    assert found.weights.sum() == pytest.approx(1)
    for order in (1, 2, 3):
        assert found.moment(order) == pytest.approx(np.mean(values**order), rel=0.15)
    below = found.weights[found.values < 0.5].sum()
    assert below == pytest.approx(0.75, abs=0.05)
    grid = np.linspace(-2, 5, 701)
    smooth = found.smooth(grid, 0.1)
    assert np.trapezoid(smooth, grid) == pytest.approx(1, abs=1e-3)
    wanted = np.mean(np.exp(-0.5 * ((grid[:, None] - values) / 0.1) ** 2), axis=1) / 0.1
    assert np.max(np.abs(smooth - wanted / np.sqrt(2 * np.pi))) < 0.2


def test_directions_have_the_norms_of_the_filters():
    params = {"kernel": jnp.asarray(np.random.RandomState(0).normal(size=(3, 3, 2, 4)))}
    params["bias"] = jnp.ones(4)
    found = landscape.filter_normalized(KEY, params)
    norms = [
        np.linalg.norm(np.asarray(x["kernel"]).reshape(18, 4), axis=0) for x in (found, params)
    ]
    np.testing.assert_allclose(*norms, rtol=1e-5)
    np.testing.assert_array_equal(found["bias"], 0)


def test_a_quadratic_loss_along_directions():
    loss = lambda p: jnp.sum(jnp.square(p["a"])) + 3 * p["b"]  # noqa: E731
    params = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.float32(1.0)}
    directions = [
        {"a": jnp.asarray([1.0, 0.0]), "b": jnp.float32(0.0)},
        {"a": jnp.asarray([0.0, 1.0]), "b": jnp.float32(2.0)},
    ]
    points = np.array([[0, 0], [1, 0], [0.5, -1]])
    found = landscape.loss_along(loss, params, directions, points)
    wanted = [(1 + s) ** 2 + (2 + t) ** 2 + 3 * (1 + 2 * t) for s, t in points]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_the_sharpness_of_a_quadratic():
    """Uphill along g = A p, the rise is r |g| + r^2 g A g / (2 |g|^2)."""
    A = np.diag([1.0, 4.0, 9.0])
    p = np.array([1.0, -1.0, 0.5])
    loss = lambda q: 0.5 * q @ jnp.asarray(A, jnp.float32) @ q  # noqa: E731
    found = landscape.sharpness(loss, jnp.asarray(p, jnp.float32), 0.1)
    g = A @ p
    wanted = 0.1 * np.linalg.norm(g) + 0.005 * g @ A @ g / (g @ g)
    assert found == pytest.approx(wanted, rel=1e-5)


def test_the_noise_scale_of_known_gradients():
    random = np.random.default_rng(0)
    mean, deviation = random.normal(size=50), 3.0
    batches = mean + deviation / np.sqrt(16) * random.normal(size=(4000, 50))
    found = landscape.gradient_noise(batches, 16)
    assert found.square == pytest.approx(mean @ mean, rel=0.02)
    assert found.variance == pytest.approx(50 * deviation**2, rel=0.02)
    assert found.scale == pytest.approx(50 * deviation**2 / (mean @ mean), rel=0.03)
    assert np.isnan(landscape.gradient_noise(np.array([[1.0], [-1.0]]), 1).scale)
