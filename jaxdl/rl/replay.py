"""Replay: the newest transitions of an agent's life, to be drawn from (Lin, 1992).

Shapes: N rows of memory, B new ones, M drawn.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.task import Key


class ReplayBuffer(NamedTuple):
    """A ring: new rows overwrite the oldest."""

    rows: Any  # arrays [N, ...]
    added: jax.Array  # int32: rows ever added


def empty(like: Any, size: int) -> ReplayBuffer:
    """Room for `size` rows such as `like`."""
    rows = jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), like)
    return ReplayBuffer(rows, jnp.int32(0))


def add(memory: ReplayBuffer, rows: Any) -> ReplayBuffer:
    """Adds rows [B, ...]; B divides N."""
    count, size = len(jax.tree.leaves(rows)[0]), _size(memory)
    at = memory.added % size

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new, at, axis=0)

    return ReplayBuffer(jax.tree.map(put, memory.rows, rows), memory.added + count)


def sample(memory: ReplayBuffer, key: Key, count: int) -> Any:
    """Rows [M, ...], drawn uniformly and with replacement; there must be one."""
    there = jnp.minimum(memory.added, _size(memory))
    drawn = jax.random.randint(key, (count,), 0, jnp.maximum(there, 1))
    return jax.tree.map(lambda a: a[drawn], memory.rows)


def _size(memory: ReplayBuffer) -> int:
    return len(jax.tree.leaves(memory.rows)[0])
