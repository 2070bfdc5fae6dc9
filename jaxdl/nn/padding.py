"""Padding of token sequences: rows of different lengths in one array, with PAD only at the end.

Shapes: B rows of T tokens.
"""

import jax
import jax.numpy as jnp

PAD = 0  # the padding token, see `jaxdl.text.vocabulary`


def lengths(tokens: jax.Array) -> jax.Array:
    """Number of tokens of each row that are not PAD: [B, T] -> int32 [B].

    >>> lengths(jnp.array([[5, 3, 0], [7, 0, 0]])).tolist()
    [2, 1]
    """
    return jnp.sum(tokens != PAD, axis=-1, dtype=jnp.int32)


def inside(lengths: jax.Array, positions: int) -> jax.Array:
    """Mask of the positions within each row: lengths int [B] -> bool [B, T].

    Args:
      lengths: int [B], number of tokens of each row.
      positions: T.

    >>> inside(jnp.array([2, 1]), 3).tolist()
    [[True, True, False], [True, False, False]]
    """
    return jnp.arange(positions)[None] < lengths[:, None]
