"""Every activation against its definition in float64, its slope, and its extremes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.nn.activations import ACTIVATIONS

DEFINITIONS = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
    "relu": lambda x: np.where(x > 0, x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1)),
    "softplus": lambda x: np.log(1 + np.exp(x)),
}
X = np.random.RandomState(0).normal(0, 3, (4, 5))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_is_its_definition(name):
    found = ACTIVATIONS[name](jnp.asarray(X, "float32"))
    np.testing.assert_allclose(found, DEFINITIONS[name](X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_is_that_of_finite_differences(name):
    up = np.random.RandomState(1).normal(size=X.shape)
    with jax.enable_x64(True):
        slope = jax.grad(lambda x: (ACTIVATIONS[name](x) * up).sum())(jnp.asarray(X))
    for place in np.ndindex(X.shape):
        step = np.zeros_like(X)
        step[place] = 1e-5
        above, below = ((DEFINITIONS[name](X + s) * up).sum() for s in (step, -step))
        assert slope[place] == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_extremes_stay_finite(name):
    x = jnp.asarray([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])
    value, slope = jax.value_and_grad(lambda x: ACTIVATIONS[name](x).sum())(x)
    assert jnp.isfinite(value)
    assert jnp.isfinite(slope).all()
