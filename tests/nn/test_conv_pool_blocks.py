"""Convolution and pooling in blocks beside the plain form of the same."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl.nn import conv_pool_blocks
from jaxdl.nn.conv import ConvPool
from jaxdl.nn.pooling import OVER_WINDOWS, POOLS


def normal(seed, *shape):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), jnp.float32)


def plain(x, kernel, bias, *, padding, activation, pool):
    pads = ((padding, padding),) * 2
    y = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return pool(activation(y + bias[None, None, None]))


@settings(max_examples=8)
@given(
    size=st.integers(1, 6),
    padding=st.integers(0, 3),
    height=st.integers(0, 9),
    width=st.integers(0, 9),
    inputs=st.integers(1, 6),
    pool=st.sampled_from(["max", "average"]),
    activation=st.sampled_from([jax.nn.relu, jnp.tanh]),
)
def test_equals_the_plain_form(size, padding, height, width, inputs, pool, activation):
    # Two results at least, so that there is something to pool.
    shape = [max(1, size + 1 - 2 * padding) + n for n in (height, width)]
    x, kernel = normal(0, 2, *shape, inputs), normal(1, size, size, inputs, 3)
    bias = normal(2, 3)
    options = {"padding": padding, "activation": activation}
    one = functools.partial(plain, pool=POOLS[pool], **options)
    two = functools.partial(
        conv_pool_blocks.convolve_and_pool, pool=OVER_WINDOWS[POOLS[pool]], **options
    )
    found, wanted = (value_and_gradients(f, x, kernel, bias) for f in (two, one))
    for a, b, atol in zip(found, wanted, (1e-4, 3e-4, 3e-4, 3e-4), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol)


def value_and_gradients(function, *inputs):
    @jax.jit
    def along_weights(*inputs):
        value, back = jax.vjp(function, *inputs)
        return value, *back(normal(3, *value.shape))

    return along_weights(*inputs)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_layer_is_convolution_activation_and_pooling(pool, dtype):
    layer = ConvPool(4, 3, 1, jax.nn.relu, POOLS[pool], dtype)
    x = normal(0, 2, 7, 6, 3)
    params = layer.init(jax.random.key(0), x)["params"]
    assert {name: leaf.dtype for name, leaf in params.items()} == {
        "kernel": jnp.float32,
        "bias": jnp.float32,
    }
    params = params | {"bias": normal(1, 4)}
    found = layer.apply({"params": params}, x)
    assert found.dtype == dtype
    wanted = plain(
        x, params["kernel"], params["bias"], padding=1, activation=jax.nn.relu, pool=POOLS[pool]
    )
    tolerance = 1e-5 if dtype == jnp.float32 else 0.05
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, rtol=tolerance, atol=tolerance)


def test_the_first_of_equals_has_the_gradient_and_forward_mode_agrees():
    largest = OVER_WINDOWS[POOLS["max"]]
    y = jnp.array([[[1.0], [3.0], [3.0], [3.0]]])
    gradient = jax.grad(lambda y: largest(y).sum())(y)
    np.testing.assert_allclose(gradient[0, :, 0], [0, 1, 0, 0], rtol=1e-6)
    _, slope = jax.jvp(largest, (y,), (jnp.ones_like(y),))
    np.testing.assert_allclose(slope, [[1.0]], rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 5, 5, 1), (2, 2, 5, 1), (2, 3, 3, 1)])
@pytest.mark.parametrize("pool", POOLS)
def test_nothing_to_pool_is_nothing(shape, pool):
    layer = ConvPool(4, 3, 0, jax.nn.relu, POOLS[pool])
    variables = layer.init(jax.random.key(0), jnp.zeros((1, 5, 5, 1)))
    assert layer.apply(variables, jnp.zeros(shape)).size == 0 or pool == "group"
