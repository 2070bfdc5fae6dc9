import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.nn.dropout import LEVELS, Dropout, StochasticDepth, random_uint16


def constant(kind, rate, x, seed=0):
    """Output of a module whose rate is a constant of the compiled function."""
    module = kind(rate, deterministic=False)
    run = jax.jit(lambda x, key: module.apply({}, x, rngs={"dropout": key}))
    return run(x, jax.random.key(seed))


drop = functools.partial(constant, Dropout)


@settings(max_examples=10)
@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    rate=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
)
def test_each_entry_is_zero_or_scaled_by_what_is_kept(shape, rate, seed):
    y = np.asarray(drop(rate, jnp.ones(shape), seed))
    kept = 1 - round(float(np.float32(rate)) * LEVELS) / LEVELS
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
    a, b = (np.asarray(random_uint16(jax.random.key(n), (256, 4096))) for n in range(2))
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


def module_of(kind, rate):
    return kind(rate, deterministic=False)


def traced(kind, rate, x, seed=0):
    """Output of a module whose rate is an argument of the compiled function."""
    run = jax.jit(lambda rate, x, key: module_of(kind, rate).apply({}, x, rngs={"dropout": key}))
    return run(rate, x, jax.random.key(seed))


@pytest.mark.parametrize("kind", [Dropout, StochasticDepth])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rate", [0.0, 1e-6, 0.001, 0.1, 0.3, 0.5, 0.999, 1.0])
def test_a_traced_rate_is_the_constant_one(kind, rate, dtype):
    x = jax.random.normal(jax.random.key(1), (64, 6, 5)).astype(dtype)
    found, wanted = traced(kind, rate, x), constant(kind, rate, x)
    assert found.dtype == wanted.dtype == dtype
    np.testing.assert_array_equal(found == 0, wanted == 0)  # the same draws
    tolerance = 1e-6 if dtype == "float32" else 1e-2
    f, w = (np.asarray(y, np.float32) for y in (found, wanted))
    np.testing.assert_allclose(f, w, rtol=tolerance)
    assert np.isfinite(f).all()
    if rate == 0:  # the constant leaves all of it out, the traced one changes no bit
        np.testing.assert_array_equal(f, np.asarray(x, np.float32))


@pytest.mark.parametrize("kind", [Dropout, StochasticDepth])
def test_rates_of_a_vmap_are_those_alone(kind):
    x = jnp.arange(1.0, 101).reshape(20, 5)
    rates = jnp.asarray([0.0, 0.2, 0.7, 1.0])
    key = jax.random.key(4)
    run = jax.vmap(lambda rate: module_of(kind, rate).apply({}, x, rngs={"dropout": key}))
    for member, rate in zip(jax.jit(run)(rates), rates, strict=True):
        np.testing.assert_allclose(member, traced(kind, rate, x, 4), rtol=1e-6)


@pytest.mark.parametrize("kind", [Dropout, StochasticDepth])
def test_the_gradient_under_a_traced_rate_is_what_each_entry_was_scaled_by(kind):
    x = jnp.arange(1.0, 31.0).reshape(6, 5)
    for rate in (0.0, 0.4, 1.0):
        by_x = jax.grad(lambda x, rate=rate: traced(kind, rate, x).sum())(x)
        np.testing.assert_allclose(by_x * x, traced(kind, rate, x), rtol=1e-6)


@settings(max_examples=10)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    rate=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
)
def test_stochastic_depth_drops_whole_examples_and_scales_the_others(shape, rate, seed):
    y = np.asarray(constant(StochasticDepth, rate, jnp.ones(shape), seed)).reshape(shape[0], -1)
    assert (y == y[:, :1]).all()
    kept = 1 - np.float32(rate)
    assert np.all((y == 0) | np.isclose(y * kept, 1, rtol=1e-6))


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_stochastic_depth_drops_as_many_as_it_should_by_independent_draws(rate):
    N = 4000
    draws = np.stack(
        [np.asarray(traced(StochasticDepth, rate, jnp.ones((N, 2)), seed))[:, 0] for seed in (0, 1)]
    )
    zero = draws == 0
    deviation = np.sqrt(rate * (1 - rate))
    assert (abs(zero.mean(1) - rate) < 4 * deviation / np.sqrt(N)).all()
    assert abs(draws.mean() - 1) < 4 * deviation / (1 - rate) / np.sqrt(2 * N)  # the mean stays
    z = (zero - rate) / deviation
    for a, b in ((z[0, 1:], z[0, :-1]), (z[0], z[1])):
        assert abs(np.mean(a * b)) < 5 / np.sqrt(N)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_stochastic_depth_is_flaxs_dropout_of_whole_examples(rate):
    """Another library's: with the axes of an example shared, and drawn from the same key."""
    x = jax.random.normal(jax.random.key(2), (50, 3, 4, 2))
    flax = nn.Dropout(rate, broadcast_dims=(1, 2, 3), deterministic=False)
    wanted = flax.apply({}, x, rngs={"dropout": jax.random.key(7)})
    np.testing.assert_allclose(constant(StochasticDepth, rate, x, 7), wanted, rtol=1e-6)
    np.testing.assert_allclose(traced(StochasticDepth, rate, x, 7), wanted, rtol=1e-6)


def test_stochastic_depth_without_effect_needs_no_key():
    x = jnp.ones((3, 4))
    assert StochasticDepth(0.5, deterministic=True).apply({}, x) is x
    assert StochasticDepth(0.0, deterministic=False).apply({}, x) is x
    assert StochasticDepth(0, deterministic=False).apply({}, x) is x
    with pytest.raises(Exception, match="dropout"):
        StochasticDepth(0.5, deterministic=False).apply({}, x)
    half = constant(StochasticDepth, 0.5, x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
