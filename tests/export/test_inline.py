"""Inlined functions compute the same, from JAX's own primitives alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdl.export.inline import inlined
from jaxdl.nn.convolution import convolve
from jaxdl.nn.dense import dot_general
from jaxdl.nn.pooling import max_pool

RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.normal(size=(2, 6, 5, 3)).astype(np.float32)
KERNEL = RANDOM.normal(size=(3, 3, 3, 4)).astype(np.float32)
ROWS = RANDOM.normal(size=(4, 3)).astype(np.float32)
HALF = jnp.asarray(ROWS, jnp.bfloat16)


def scan_back(x):
    def step(carry, row):
        carry = jnp.tanh(carry + row)
        return carry, carry * 2

    return lax.scan(step, jnp.zeros(3), x, reverse=True)


def loop(x):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1] + x)), (0, x))[1]


CASES = {
    "convolution": (lambda x: convolve(x, KERNEL, (1, 1), ((1, 1), (1, 1))), IMAGES),
    "pooling": (max_pool, IMAGES),
    "max_pool": (lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))), IMAGES),
    "max_pool_same": (lambda x: nn.max_pool(x, (2, 3), (1, 2), "SAME"), IMAGES),
    "product": (lambda x: dot_general(x, x.T, (((1,), (0,)), ((), ()))), HALF),
    "scan": (scan_back, ROWS),
    "while": (loop, ROWS),
    "cond": (lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x), ROWS),
    "running": (lambda x: lax.cummax((x * 9).astype(int), 0) + lax.cummin(x, 1, True), ROWS),
    "booleans": (lambda x: jnp.where(x > 0, x > 1, x < -1), ROWS),
    "calls": (lambda x: jax.jit(jax.checkpoint(jax.nn.relu))(jax.nn.silu(x)), ROWS),
}
OURS = (
    "convolution_forward",
    "matrix_product",
    "platform_index",
    "reduce_window_max",
    "cummax",
    "cummin",
)


def primitives(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


@pytest.mark.parametrize("name", CASES)
def test_the_result_is_the_same(name):
    function, x = CASES[name]
    found = inlined(function, jax.ShapeDtypeStruct(x.shape, x.dtype))
    traced = jax.make_jaxpr(found)(x)
    assert not set(primitives(traced.jaxpr)) & {*OURS, "custom_jvp_call"}
    scans = [e.params["reverse"] for e in traced.jaxpr.eqns if e.primitive.name == "scan"]
    assert not any(scans)
    close = 2e-2 if x.dtype == jnp.bfloat16 else 1e-5
    for a, b in zip(jax.jit(found)(x), jax.tree.leaves(jax.jit(function)(x)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=close, atol=close
        )
