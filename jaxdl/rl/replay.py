"""Replay buffer: the most recent transitions of an agent, to be sampled from (Lin, 1992).

Shapes: N rows of the buffer, B new rows, M sampled rows.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxdl.task import Key


class ReplayBuffer(NamedTuple):
    """Ring buffer: new rows overwrite the oldest.

    Attributes:
      rows: pytree of arrays [N, ...].
      added: int32, number of rows ever added.
    """

    rows: chex.ArrayTree
    added: jax.Array


def empty(like: chex.ArrayTree, size: int) -> ReplayBuffer:
    """Creates a buffer of zeros.

    Args:
      like: a row, or anything with the shapes and dtypes of its leaves.
      size: N, the capacity in rows.
    """
    rows = jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), like)
    return ReplayBuffer(rows, jnp.int32(0))


def add(memory: ReplayBuffer, rows: chex.ArrayTree) -> ReplayBuffer:
    """Adds rows [B, ...]; B must divide N.

    >>> buffer = add(empty(jnp.float32(0), 4), jnp.array([1.0, 2.0]))
    >>> buffer.rows.tolist(), int(buffer.added)
    ([1.0, 2.0, 0.0, 0.0], 2)
    """
    count, size = len(jax.tree.leaves(rows)[0]), _size(memory)
    start = memory.added % size

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=0)

    return ReplayBuffer(jax.tree.map(put, memory.rows, rows), memory.added + count)


def sample(memory: ReplayBuffer, key: Key, count: int) -> chex.ArrayTree:
    """Samples rows [M, ...] uniformly with replacement; the buffer must not be empty."""
    filled = jnp.minimum(memory.added, _size(memory))
    indices = jax.random.randint(key, (count,), 0, jnp.maximum(filled, 1))
    return jax.tree.map(lambda a: a[indices], memory.rows)


def _size(memory: ReplayBuffer) -> int:
    return len(jax.tree.leaves(memory.rows)[0])
