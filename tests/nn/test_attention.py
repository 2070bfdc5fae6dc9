import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.nn.attention import MultiHeadAttention, apply_rotary, attention_weights

D, H = 8, 2


def normal(seed, *shape):
    return np.random.RandomState(seed).normal(size=shape).astype(np.float32)


def filled(layer, *given):
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), *given, train=False))
    random = np.random.RandomState(0)
    return jax.tree.map(lambda a: jnp.asarray(random.normal(0, 0.5, a.shape), a.dtype), shapes)


def turned(vector, position):
    """Pairs of features as complex numbers, turned."""
    half = len(vector) // 2
    z = (vector[0::2] + 1j * vector[1::2]) * np.exp(
        1j * position * 1e4 ** (-np.arange(half) / half)
    )
    return np.stack([z.real, z.imag], axis=1).reshape(-1)


def by_loops(params, x, memory, mask, rotary):
    """In float64, one position and one head at a time."""
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)

    def through(name, rows):
        return np.asarray(rows, np.float64) @ params[name]["kernel"] + params[name]["bias"]

    B, T, S, d = len(x), x.shape[1], memory.shape[1], D // H
    mask = np.broadcast_to(mask, (B, T, S))
    out = np.zeros((B, T, D))
    for b, t in np.ndindex(B, T):
        found = np.zeros(D)
        for head in range(H):
            part = slice(head * d, (head + 1) * d)
            q = through("query", x[b, t])[part]
            keys, values = (through(name, memory[b])[:, part] for name in ("key", "value"))
            if rotary:
                q, keys = turned(q, t), np.array([turned(k, s) for s, k in enumerate(keys)])
            seen = np.flatnonzero(mask[b, t])
            e = np.exp(keys[seen] @ q / np.sqrt(d))
            found[part] = (e / e.sum()) @ values[seen] if len(seen) else 0
        out[b, t] = through("out", found) if mask[b, t].any() else 0
    return out


@settings(max_examples=8)
@given(st.tuples(*(st.integers(1, most) for most in (2, 4, 4))), st.booleans(), st.integers(0, 99))
def test_is_the_published_equations(sizes, rotary, seed):
    B, T, S = sizes
    x, memory = normal(0, B, T, D), normal(1, B, S, 5)
    random = np.random.RandomState(seed)
    mask = random.uniform(size=(random.choice([1, B]), random.choice([1, T]), S)) < 0.7
    layer = MultiHeadAttention(D, H, rotary=rotary)
    variables = filled(layer, x, memory, mask)
    found = jax.jit(functools.partial(layer.apply, train=False))(variables, x, memory, mask)
    wanted = by_loops(variables["params"], x, memory, mask, rotary)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_where_nothing_may_be_seen_all_is_zero():
    scores, mask = jnp.array([[1e4, -1e4], [3.0, 4.0]]), jnp.array([[False, False], [True, False]])
    np.testing.assert_array_equal(attention_weights(scores, mask), [[0, 0], [1, 0]])
    gradient = jax.grad(lambda s: jnp.sum(jnp.sin(attention_weights(s, mask))))(scores)
    np.testing.assert_array_equal(gradient, 0)


def test_what_is_masked_gets_no_gradient():
    x, memory = normal(0, 2, 3, D), normal(1, 2, 4, D)
    mask = np.arange(4)[None, None] < np.array([2, 3])[:, None, None]
    layer = MultiHeadAttention(D, H)
    variables = filled(layer, x, memory, mask)
    gradient = jax.grad(
        lambda m: jnp.sum(jnp.sin(layer.apply(variables, x, m, mask, train=False)))
    )(memory)
    np.testing.assert_array_equal(np.any(gradient != 0, axis=-1), mask[:, 0])


@settings(max_examples=15)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_turned_vectors_see_distances_alone(first, second, shift):
    q, k = normal(0, 1, 1, 1, 6), normal(1, 1, 1, 1, 6)

    def product(a, b):
        return float(jnp.sum(apply_rotary(q, jnp.array([a])) * apply_rotary(k, jnp.array([b]))))

    near = product(first, second)
    np.testing.assert_allclose(product(first + shift, second + shift), near, atol=2e-3)
    rotated = apply_rotary(q, jnp.array([first]))
    np.testing.assert_allclose(np.linalg.norm(rotated), np.linalg.norm(q), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_half_precision_and_dropout(dtype):
    x, mask = normal(0, 2, 5, D), np.ones((1, 1, 5), bool)
    layer = MultiHeadAttention(D, H, dropout=0.5, dtype=dtype)
    variables = filled(layer, x, x, mask)
    exact = MultiHeadAttention(D, H).apply(variables, x, x, mask, train=False)
    found = layer.apply(variables, x, x, mask, train=False)
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found, np.float32), exact, rtol=0.05, atol=0.1)
    one, two = (
        layer.apply(variables, x, x, mask, train=True, rngs={"dropout": jax.random.key(n)})
        for n in range(2)
    )
    assert not jnp.array_equal(one, two)
