import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.nn.dense import Dense, dot_general

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}


def normal(seed, *shape, dtype="float32"):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), dtype)


def assert_close(found, wanted, dtype):
    found, wanted = (np.asarray(a, np.float64) for a in (found, wanted))
    scale = max(1.0, np.abs(wanted).max(initial=0))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("options", [{}, {"use_bias": False}])
def test_interchangeable_with_flax(dtype, options):
    x = normal(0, 3, 4, 5)
    ours, theirs = Dense(6, dtype=dtype, **options), nn.Dense(6, dtype=dtype, **options)
    variables = theirs.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, ours.init(jax.random.key(0), x))

    def results(layer):
        y, back = jax.vjp(layer.apply, variables, x)
        return y, back(jnp.cos(y))

    def compare(found, wanted):
        assert found.dtype == wanted.dtype
        assert_close(found, wanted, dtype)

    jax.tree.map(compare, jax.jit(lambda: results(ours))(), results(theirs))


@settings(max_examples=10)
@given(
    st.sampled_from(["bts,sd->btd", "btd,sd->bts", "sbt,sbd->btd", "bthd,bshd->bhts"]),
    st.lists(st.integers(1, 4), min_size=5, max_size=5),
    st.sampled_from(list(TOLERANCE)),
)
def test_every_contraction_with_its_derivatives(pattern, sizes, dtype):
    axes = dict(zip("btshd", sizes, strict=True))
    left, right = pattern.split("->")[0].split(",")
    a = normal(0, *(axes[c] for c in left), dtype=dtype)
    b = normal(1, *(axes[c] for c in right), dtype=dtype)

    def product(a, b, one=dot_general):
        return jnp.einsum(pattern, a, b, _dot_general=one)

    y, back = jax.jit(lambda: jax.vjp(product, a, b))()
    assert y.dtype == a.dtype
    wide = [np.asarray(v, np.float64) for v in (a, b)]
    assert_close(y, np.einsum(pattern, *wide), dtype)
    out = pattern.split("->")[1]
    g = np.asarray(y, np.float64)
    da, db = back(y)
    if set(left) <= set(right) | set(out) and set(right) <= set(left) | set(out):
        assert_close(da, np.einsum(f"{out},{right}->{left}", g, wide[1]), dtype)
        assert_close(db, np.einsum(f"{out},{left}->{right}", g, wide[0]), dtype)


def test_differentiates_twice():
    x, w = normal(0, 3, 4, dtype="bfloat16"), normal(1, 4, 2, dtype="bfloat16")

    def f(w):
        return jnp.sum(jnp.square(dot_general(x, w, (((1,), (0,)), ((), ()))).astype(jnp.float32)))

    found = jax.grad(lambda w: jnp.sum(jax.grad(f)(w).astype(jnp.float32)))(w)
    wide = np.asarray(x, np.float64)
    wanted = 2 * wide.T @ wide @ np.ones((4, 2))
    assert_close(found, wanted, "bfloat16")
