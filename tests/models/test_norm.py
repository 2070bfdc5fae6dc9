import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models.norm import NORMS

X = np.random.RandomState(0).normal(2, 3, (5, 4, 4, 12)).astype(np.float32)


class Layer(nn.Module):
    name_of: str

    @nn.compact
    def __call__(self, x, train):
        return NORMS[self.name_of](x, train, x.dtype)


def standardized(x, axes):
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def applied(name, x, train, state=None):
    layer = Layer(name)
    variables = layer.init(jax.random.key(0), x, False)
    return layer.apply(variables | (state or {}), x, train, mutable=["batch_stats"])


def groups(x, count):
    return x.reshape(*x.shape[:-1], count, -1)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("batch", standardized(X, (0, 1, 2))),
        ("layer", standardized(X, -1)),
        ("group", standardized(groups(X, 4), (1, 2, 4)).reshape(X.shape)),  # gcd(12, 32) of them
        ("none", X),
    ],
)
def test_is_its_definition(name, wanted):
    found, _ = applied(name, jnp.asarray(X), train=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_batch_keeps_a_running_mean_and_evaluates_by_it():
    _, state = applied("batch", jnp.asarray(X), train=True)
    (stats,) = state["batch_stats"].values()
    np.testing.assert_allclose(stats["mean"], 0.1 * X.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * X.var((0, 1, 2)), rtol=1e-4)
    found, _ = applied("batch", jnp.asarray(X), train=False, state=state)
    mean, var = (np.asarray(stats[key], np.float64) for key in ("mean", "var"))
    np.testing.assert_allclose(found, (X - mean) / np.sqrt(var + 1e-5), rtol=1e-4, atol=1e-4)
