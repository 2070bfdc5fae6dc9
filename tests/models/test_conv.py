import flax.linen as nn
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl.models.conv import Conv, as_product, convolve


def normal(seed, *shape):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape).astype(np.float32))


@settings(max_examples=8, deadline=None)
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


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "bias"),
    [(1, 3, 1, None, True), (2, 3, 1, None, True), (5, 3, 1, None, True), (2, 3, 2, None, False),
     (5, 5, 1, 0, True), (4, 1, 2, None, False), (9, 7, 2, None, False), (6, 2, 1, 1, True)],
)  # fmt: skip
def test_interchangeable_with_flax(size, kernel, stride, padding, bias):
    x = normal(0, 2, size, size, 3)
    ours = Conv(4, kernel, stride, padding, use_bias=bias)
    pads = (kernel - 1) // 2 if padding is None else padding
    theirs = nn.Conv(
        4, (kernel, kernel), stride, padding=pads, use_bias=bias,
        kernel_init=nn.initializers.he_normal(),
    )  # fmt: skip
    variables = theirs.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, ours.init(jax.random.key(0), x))
    np.testing.assert_allclose(
        ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-4, atol=1e-5
    )


def test_computes_in_its_dtype():
    x = normal(0, 1, 2, 2, 3)
    layer = Conv(4, dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    assert layer.apply(variables, x).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
