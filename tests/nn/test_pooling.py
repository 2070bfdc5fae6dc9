import flax.linen as nn
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl.nn.pooling import OVER_WINDOWS, POOLS, adaptive_average

REDUCE = {"max": np.max, "average": np.mean, "median": np.median}


def normal(seed, *shape):
    return np.random.RandomState(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", REDUCE)
def test_each_window_is_reduced(name):
    for shape in ((2, 4, 4, 3), (1, 5, 2, 1), (3, 7, 3, 2)):
        x = normal(0, *shape)
        found = np.asarray(jax.jit(POOLS[name])(jnp.asarray(x)))
        assert found.shape == (shape[0], shape[1] // 2, shape[2] // 2, shape[3])
        for b, h, w, c in np.ndindex(found.shape):
            window = x[b, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2, c]
            assert found[b, h, w, c] == pytest.approx(REDUCE[name](window), abs=1e-6)


def test_groups_are_of_two_channels():
    x = normal(0, 2, 3, 3, 5)
    wanted = np.maximum(x[..., [0, 2]], x[..., [1, 3]])
    np.testing.assert_array_equal(POOLS["group"](jnp.asarray(x)), wanted)


@pytest.mark.parametrize("name", POOLS)
def test_gradient_is_that_of_finite_differences(name):
    x = normal(3, 1, 4, 5, 4).astype(np.float64)
    with jax.enable_x64(True):
        x = jnp.asarray(x)
        weights = jnp.asarray(normal(4, *POOLS[name](x).shape), jnp.float64)
        f = jax.jit(lambda x: (POOLS[name](x) * weights).sum())
        gradient = jax.grad(f)(x)
        for place in np.ndindex(x.shape):
            step = jnp.zeros_like(x).at[place].set(1e-6)
            slope = (f(x + step) - f(x - step)) / 2e-6
            assert float(gradient[place]) == pytest.approx(float(slope), abs=1e-7)


@settings(max_examples=8)
@given(
    b=st.integers(1, 3),
    h=st.integers(2, 7),
    w=st.integers(2, 7),
    seed=st.integers(0, 99),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_maximum_is_that_of_flax_in_value_and_gradient(b, h, w, seed, dtype):
    x = jnp.asarray(np.round(normal(seed, b, h, w, 2)), dtype)  # with ties

    @jax.jit
    def both(x):
        one, back_one = jax.vjp(POOLS["max"], x)
        two, back_two = jax.vjp(lambda x: nn.max_pool(x, (2, 2), (2, 2)), x)
        return (one, back_one(one)), (two, back_two(one))

    jax.tree.map(np.testing.assert_array_equal, *both(x))


@pytest.mark.parametrize("largest", [POOLS["max"], lambda x: OVER_WINDOWS[POOLS["max"]](side(x))])
def test_curvature_is_of_the_first_of_equals_too(largest):
    ties = jnp.ones((1, 2, 2, 1))
    hessian = jax.hessian(lambda x: (largest(x) ** 2).sum() / 2)(ties).reshape(4, 4)
    np.testing.assert_array_equal(hessian, np.diag([1.0, 0, 0, 0]))


def side(x):
    """The windows of [1, 2, 2, C] side by side: [1, 4, C]."""
    return x.reshape(1, 4, -1)


def test_any_number_of_batch_axes():
    x = jnp.asarray(normal(5, 2, 3, 5, 4, 2))
    for name in REDUCE:
        pool = POOLS[name]
        np.testing.assert_array_equal(pool(x), jax.vmap(pool)(x))
        np.testing.assert_array_equal(pool(x[0, 0]), pool(x[0])[0])
        gradient = jax.grad(lambda x, pool=pool: (pool(x) ** 2).sum())
        np.testing.assert_array_equal(gradient(x), jax.vmap(gradient)(x))


@pytest.mark.parametrize(("pixels", "size"), [(7, 7), (10, 7), (3, 7), (14, 7), (1, 2), (5, 1)])
def test_adaptive_windows_are_those_of_the_formula(pixels, size):
    x = normal(0, 2, pixels, pixels, 3)
    starts = [n * pixels // size for n in range(size)]
    ends = [int(np.ceil((n + 1) * pixels / size)) for n in range(size)]
    pooled = adaptive_average(jnp.asarray(x), size)
    assert pooled.shape == (2, size, size, 3)
    for i, j in np.ndindex(size, size):
        window = x[:, starts[i] : ends[i], starts[j] : ends[j]].astype(np.float64)
        np.testing.assert_allclose(pooled[:, i, j], window.mean((1, 2)), atol=1e-6)
