import flax.linen as nn
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl.models.conv import Conv3x3, as_product, convolve
from jaxdl.models.pool import max_pool_2x2


def normal(seed, *shape):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape).astype(np.float32))


@settings(max_examples=10, deadline=None)
@given(
    b=st.integers(1, 3), h=st.integers(1, 4), w=st.integers(1, 4),
    i=st.integers(1, 4), o=st.integers(1, 4), seed=st.integers(0, 99),
)  # fmt: skip
def test_product_is_the_convolution_in_value_and_gradient(b, h, w, i, o, seed):
    x, kernel, up = normal(seed, b, h, w, i), normal(seed + 1, 3, 3, i, o), normal(2, b, h, w, o)
    one, back_one = jax.vjp(convolve, x, kernel)
    two, back_two = jax.vjp(as_product, x, kernel)
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    for left, right in zip(back_one(up), back_two(up), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_interchangeable_with_flax(size):
    x = normal(0, 2, size, size, 3)
    ours, theirs = Conv3x3(4), nn.Conv(4, (3, 3), kernel_init=nn.initializers.he_normal())
    variables = theirs.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, ours.init(jax.random.key(0), x))
    np.testing.assert_allclose(
        ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-4, atol=1e-5
    )


def test_computes_in_its_dtype():
    x = normal(0, 1, 2, 2, 3)
    layer = Conv3x3(4, dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    assert layer.apply(variables, x).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@settings(max_examples=10, deadline=None)
@given(b=st.integers(1, 3), h=st.integers(2, 7), w=st.integers(2, 7), seed=st.integers(0, 99))
def test_pooling_is_flax_pooling_in_value_and_gradient(b, h, w, seed):
    x = normal(seed, b, h, w, 2)  # no ties, where the two share the gradient differently

    def theirs(x):
        return nn.max_pool(x, (2, 2), (2, 2))

    one, back_one = jax.vjp(max_pool_2x2, x)
    two, back_two = jax.vjp(theirs, x)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(back_one(one)[0], back_two(one)[0])
