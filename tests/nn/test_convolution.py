from functools import partial

import flax.linen as nn
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax import lax

from jaxdl.nn import conv_kernels, convolution
from jaxdl.nn.conv import Conv, square_conv

TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}


def normal(seed, *shape, dtype="float32"):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), dtype)


def by_xla(x, w, strides, padding):
    # Padded beforehand: a gradient by images whose padding is wider than the kernel would cut some
    # off, and XLA's convolution then reads memory that nobody wrote (jax 0.10.2).
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    return lax.conv_general_dilated(x, w, strides, "VALID", dimension_numbers=conv_kernels.LAYOUT)


def assert_close(found, wanted, dtype="float32"):
    found, wanted = (np.asarray(a, np.float32) for a in (found, wanted))
    assert found.shape == wanted.shape
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[dtype] * scale)


@st.composite
def convolutions(draw):
    """(x shape, w shape, strides, padding) whose result is not empty."""
    image = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = []
    for size, k in zip(image, kernel, strict=True):
        low = draw(st.integers(0, 4))
        padding.append((low, draw(st.integers(max(0, k - size - low), 6))))
    inputs, outputs, B = (draw(st.integers(1, 4)) for _ in range(3))
    return (B, *image, inputs), (*kernel, inputs, outputs), strides, tuple(padding)


@settings(max_examples=15)
@given(convolutions(), st.sampled_from(["float32", "bfloat16"]))
def test_equals_xla_in_value_and_derivatives(given_shapes, dtype):
    x_shape, w_shape, strides, padding = given_shapes
    x, w = normal(0, *x_shape, dtype=dtype), normal(1, *w_shape, dtype=dtype)
    dx, dw = normal(2, *x_shape, dtype=dtype), normal(3, *w_shape, dtype=dtype)

    def all_of(convolve, x, w, dx, dw):
        f = partial(convolve, strides=strides, padding=padding)
        y, back = jax.vjp(f, x, w)
        return y, *back(jnp.cos(y)), jax.jvp(f, (x, w), (dx, dw))[1]

    both = (jax.jit(partial(all_of, f))(x, w, dx, dw) for f in (convolution.convolve, by_xla))
    for found, wanted in zip(*both, strict=True):
        assert found.dtype == wanted.dtype
        assert_close(found, wanted, dtype)


@settings(max_examples=8)
@given(convolutions(), st.sampled_from([(0, 0), (0, None), (None, 0)]))
def test_batches_of_members(given_shapes, axes):
    x_shape, w_shape, strides, padding = given_shapes
    x = normal(0, *((3,) if axes[0] == 0 else ()), *x_shape)
    w = normal(1, *((3,) if axes[1] == 0 else ()), *w_shape)

    def gradients(convolve, x, w):
        y, back = jax.vjp(lambda x, w: convolve(x, w, strides, padding), x, w)
        return y, *back(jnp.cos(y))

    found = jax.jit(jax.vmap(partial(gradients, convolution.convolve), axes))(x, w)
    wanted = jax.jit(jax.vmap(partial(gradients, by_xla), axes))(x, w)
    for ours, theirs in zip(found, wanted, strict=True):
        assert_close(ours, theirs)


def test_members_of_members_and_bfloat16():
    x, w = normal(0, 2, 3, 4, 5, 5, 2, dtype="bfloat16"), normal(1, 3, 3, 3, 2, 4, dtype="bfloat16")

    def run(convolve):
        one = partial(convolve, strides=(1, 1), padding=((1, 1), (1, 1)))
        return jax.vmap(jax.vmap(one), (0, None))(x, w)

    assert_close(jax.jit(lambda: run(convolution.convolve))(), run(by_xla), "bfloat16")


@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
def test_gradient_of_a_gradient(strides):
    x, w, padding = normal(0, 2, 5, 4, 2), normal(1, 3, 2, 2, 3), ((1, 1), (0, 1))

    def penalty(convolve):
        def inner(x, w):
            return jnp.sum(jnp.tanh(convolve(x, w, strides, padding)))

        return jax.grad(lambda w: jnp.sum(jnp.sin(jax.grad(inner)(x, w))))(w)

    assert_close(penalty(convolution.convolve), penalty(by_xla))
    hessian = jax.jacfwd(jax.grad(lambda w: jnp.sum(convolution.convolve(x, w, strides, padding))))
    np.testing.assert_array_equal(hessian(w), np.zeros((*w.shape, *w.shape)))


def test_one_loop_in_float64_agrees():
    x, w = normal(0, 2, 5, 6, 3), normal(1, 3, 2, 3, 4)
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 2), (0, 1), (0, 0)))
    wanted = np.zeros((2, 3, 6, 4))
    for i, j in np.ndindex(3, 6):
        seen = padded[:, 2 * i : 2 * i + 3, j : j + 2]
        wanted[:, i, j] = np.tensordot(seen, np.asarray(w, np.float64), 3)
    assert_close(convolution.convolve(x, w, (2, 1), ((1, 2), (0, 1))), wanted)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"strides": 2}, {"padding": "VALID"}, {"padding": 2, "use_bias": False},
        {"kernel_dilation": 2}, {"input_dilation": 2, "padding": 1}, {"feature_group_count": 3},
        {"padding": "CIRCULAR"}, {"precision": "highest"}, {"dtype": jnp.bfloat16},
    ],
)  # fmt: skip
def test_interchangeable_with_flax(options):
    x = normal(0, 2, 6, 6, 3)
    ours, theirs = Conv(6, (3, 3), **options), nn.Conv(6, (3, 3), **options)
    variables = theirs.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, ours.init(jax.random.key(0), x))
    found, wanted = ours.apply(variables, x), theirs.apply(variables, x)
    assert found.dtype == wanted.dtype
    assert_close(found, wanted, found.dtype.name)


@pytest.mark.parametrize("shape", [(2, 7, 3), (2, 4, 4, 4, 3), (5, 5, 3)])
def test_other_numbers_of_axes_are_xlas(shape):
    space = (3,) * (len(shape) - 2) if len(shape) != 3 or shape[0] == 2 else (3, 3)
    x, layer = normal(0, *shape), Conv(2, space)
    variables = layer.init(jax.random.key(0), x)
    assert_close(layer.apply(variables, x), nn.Conv(2, space).apply(variables, x))


def test_square_keeps_the_size_and_initialises_for_rectifiers():
    x = normal(0, 1, 8, 8, 64)
    y, variables = square_conv(16, 5).init_with_output(jax.random.key(0), x)
    assert y.shape == (1, 8, 8, 16)
    kernel = variables["params"]["kernel"]
    np.testing.assert_allclose(kernel.std(), (2 / (5 * 5 * 64)) ** 0.5, rtol=0.05)


@pytest.mark.parametrize("shape", [(0, 5, 5, 2), (2, 0, 5, 2), (1, 2, 9, 2)])
def test_an_empty_result_is_that_of_flax(shape):
    ours, theirs = (layer(4, (3, 3), padding=0) for layer in (Conv, nn.Conv))
    x = jnp.zeros(shape)
    variables = theirs.init(jax.random.key(0), jnp.zeros((1, 5, 5, 2)))
    assert ours.apply(variables, x).shape == theirs.apply(variables, x).shape


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64"])
def test_types_are_those_of_flax(dtype):
    x = jnp.ones((1, 5, 5, 2), dtype)
    for options in ({}, {"dtype": jnp.bfloat16}, {"param_dtype": jnp.bfloat16}):
        if dtype == "complex64" and options:
            continue
        ours, theirs = (layer(4, (3, 3), **options) for layer in (Conv, nn.Conv))
        # Not computed: a CPU without F16C has no float16 in XLA.
        variables = jax.eval_shape(theirs.init, jax.random.key(0), x)
        found, wanted = (jax.eval_shape(each.apply, variables, x) for each in (ours, theirs))
        assert found.dtype == wanted.dtype


def test_no_members_and_no_examples():
    x, w = jnp.ones((0, 2, 6, 6, 16)), jnp.ones((0, 3, 3, 16, 32))
    layer = partial(convolution.convolve, strides=(1, 1), padding=((1, 1), (1, 1)))
    assert jax.vmap(layer)(x, w).shape == (0, 2, 6, 6, 32)
    assert jax.vmap(layer, (0, None))(x, jnp.ones((3, 3, 16, 32))).shape == (0, 2, 6, 6, 32)
    assert jax.vmap(layer, (None, 0))(x.reshape(-1, 6, 6, 16), w).shape == (0, 0, 6, 6, 32)
