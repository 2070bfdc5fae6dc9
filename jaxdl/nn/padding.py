"""Rows of tokens of different lengths in one array: PAD stands at the end, and nowhere else.

Shapes: B rows of T tokens.
"""

import jax
import jax.numpy as jnp

PAD = 0  # the token that is none; see `jaxdl.text.vocabulary`


def lengths(tokens: jax.Array) -> jax.Array:
    """Number of tokens of each row that are not PAD: [B, T] -> int32 [B]."""
    return jnp.sum(tokens != PAD, axis=-1, dtype=jnp.int32)


def inside(lengths: jax.Array, positions: int) -> jax.Array:
    """Mask of the positions that are within each row: [B] -> bool [B, T]."""
    return jnp.arange(positions)[None] < lengths[:, None]
