"""Pooling, by name: over 2x2 windows, to [B, H // 2, W // 2, C], or over pairs of channels.

Shapes: B images of H by W with C channels. An odd last row or column is dropped, as `nn.max_pool`
does.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Pool = Callable[[jax.Array], jax.Array]


def maximum(x: jax.Array) -> jax.Array:
    """The largest of each window.

    Written as maxima of strided slices, whose gradient runs on a CPU some 10 times faster than that
    of XLA's window reduction; where the largest is not unique, the gradient is shared among equals.
    """
    first, second = _rows(x)
    return jnp.maximum(*_columns(jnp.maximum(first, second)))


def average(x: jax.Array) -> jax.Array:
    """The mean of each window."""
    first, second = _rows(x)
    left, right = _columns(first + second)
    return (left + right) / 4


def median(x: jax.Array) -> jax.Array:
    """The mean of the two middle values of each window: what the largest and smallest leave."""
    first, second = _rows(x)
    (a, b), (c, d) = _columns(first), _columns(second)
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
    """Equals share the gradient: as JAX's own rule says, in less than half of its time on a CPU."""
    (y,), (tangent,) = primals, tangents
    largest = _largest(y)
    equal = (y == largest[..., None, :]).astype(y.dtype)
    count = sum(equal[..., i, :] for i in range(y.shape[-2]))
    return largest, jnp.sum(equal * tangent, axis=-2) / count


# Of windows that already lie side by side, [..., 4, C] -> [..., C], where that has a quick form.
OVER_WINDOWS: dict[Pool, Pool] = {maximum: _largest, average: lambda y: jnp.mean(y, axis=-2)}


def _rows(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    H = x.shape[1] // 2 * 2
    return x[:, 0:H:2], x[:, 1:H:2]


def _columns(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    W = x.shape[2] // 2 * 2
    return x[:, :, 0:W:2], x[:, :, 1:W:2]
