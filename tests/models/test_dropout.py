import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.models.dropout import LEVELS, Dropout, at_random


def drop(rate, x, seed=0):
    module = Dropout(rate, deterministic=False)
    return jax.jit(lambda x, key: module.apply({}, x, rngs={"dropout": key}))(
        x, jax.random.key(seed)
    )


@settings(max_examples=10)
@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    rate=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
)
def test_each_entry_is_zero_or_scaled_by_what_is_kept(shape, rate, seed):
    y = np.asarray(drop(rate, jnp.ones(shape), seed))
    kept = 1 - round(rate * LEVELS) / LEVELS
    assert y.shape == tuple(shape)
    assert np.all((y == 0) | np.isclose(y * kept, 1, rtol=1e-6))


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_share_and_variance_are_those_of_independent_draws(rate):
    N = 1000
    zero = np.asarray(drop(rate, jnp.ones((N, N + 1)))) == 0
    deviation = np.sqrt(rate * (1 - rate))
    assert abs(zero.mean() - rate) < 4 * deviation / N
    # Of rows and of columns, the counts vary as binomial ones do.
    for axis in (0, 1):
        assert zero.sum(axis).var() == pytest.approx(N * rate * (1 - rate), rel=0.25)
    # The halves of one word, neighbours and rows are not correlated.
    z = (zero - rate) / deviation
    for a, b in ((z[:, :500], z[:, 501:1001]), (z[:, 1:], z[:, :-1]), (z[1:], z[:-1])):
        assert abs(np.mean(a * b)) < 5 / np.sqrt(a.size)


def test_numbers_are_uniform_and_differ_by_key():
    a, b = (np.asarray(at_random(jax.random.key(n), (256, 4096))) for n in range(2))
    counts = np.bincount(a.ravel() // 256, minlength=256)
    squares = np.sum((counts - 4096) ** 2 / 4096)  # chi squared with 255 degrees of freedom
    assert abs(squares - 255) < 5 * np.sqrt(2 * 255)
    assert np.mean(a == b) < 1e-4


def test_gradient_is_what_each_entry_was_scaled_by():
    x = jnp.arange(1.0, 31.0).reshape(2, 15)
    assert np.array_equal(jax.grad(lambda x: drop(0.4, x).sum())(x) * x, drop(0.4, x))


def test_says_as_flax_does_when_nothing_is_dropped():
    x = jnp.ones((3, 4))
    for module in (Dropout, nn.Dropout):
        assert module(0.5).apply({}, x, deterministic=True) is x
        assert module(0.0, deterministic=False).apply({}, x) is x
        assert not np.any(
            module(1.0, deterministic=False).apply({}, x, rngs={"dropout": jax.random.key(0)})
        )
        with pytest.raises(Exception, match="deterministic"):
            module(0.5).apply({}, x)
    assert drop(0.5, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
