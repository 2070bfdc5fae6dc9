"""Attention of several heads (Vaswani et al., 2017), and rotary positions (Su et al., 2021).

Shapes: B examples, T positions that ask and S that are asked, D features, H heads.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.errors import UserError
from jaxdl.nn.dense import Dense, general
from jaxdl.nn.dropout import Dropout

BASE = 10_000  # of the wavelengths of positions, in both papers


def rotate(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Turns each pair of features by an angle that grows with the position.

    So a product of two vectors depends on how far apart their positions are, not on where they are.

    Args:
      x: [B, T, H, d], d even.
      positions: int [T].
    """
    half = x.shape[-1] // 2
    angles = positions[:, None] * BASE ** -(jnp.arange(half) / half)[None]
    cos, sin = (f(angles)[None, :, None] for f in (jnp.cos, jnp.sin))
    first, second = jnp.moveaxis(x.astype(jnp.float32).reshape(*x.shape[:-1], half, 2), -1, 0)
    pairs = first * cos - second * sin, first * sin + second * cos
    return jnp.stack(pairs, axis=-1).reshape(x.shape).astype(x.dtype)


def weights(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """The softmax over the last axis of what the mask lets through, in float32.

    Zeros, with gradients of zero, where it lets nothing through.

    Args:
      scores: [..., S].
      mask: bool, of sizes that broadcast to those of scores.
    """
    scores = scores.astype(jnp.float32)
    chosen = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    return jnp.where(mask, nn.softmax(chosen), 0)


class MultiHeadAttention(nn.Module):
    """Multi-head attention to a memory; self-attention where the memory is the positions.

    To attend to a memory that grows, keep what `project` gives and call `attend`.

    Attributes:
      features: D, of what is put out.
      heads: H.
      dropout: rate of the weights of attention.
      rotary: turn queries and keys by their positions.
      dtype: of the products; the softmax is in float32.
    """

    features: int
    heads: int
    dropout: float = 0.0
    rotary: bool = False
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Makes the four projections.

        Raises:
          UserError: the heads do not divide the features, or into odd parts that must be turned.
        """
        if self.features % self.heads:
            raise UserError(
                f"heads={self.heads} do not divide features={self.features}: give others"
            )
        if self.rotary and self.features // self.heads % 2:
            raise UserError(
                f"{self.features // self.heads} features a head are odd, and rotary positions turn "
                "pairs of them: give other heads or features"
            )
        self.query, self.key, self.value, self.out = (
            Dense(self.features, dtype=self.dtype) for _ in range(4)
        )
        self.drop = Dropout(self.dropout)

    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array,
        mask: jax.Array,
        *,
        train: bool,
        positions: jax.Array | None = None,
    ) -> jax.Array:
        """Attends.

        Args:
          x: [B, T, D], what asks.
          memory: [B, S, D'], what is asked.
          mask: bool [B or 1, T or 1, S], what may be seen; where nothing may, the result is zero.
          train: draws dropout.
          positions: int [T], of x and of a memory as long, for rotary ones; None: from 0 on.

        Returns:
          [B, T, D].
        """
        keys, values = self.project(memory, positions)
        return self.attend(x, keys, values, mask, train=train, positions=positions)

    def project(
        self, memory: jax.Array, positions: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The keys and values of a memory [B, S, D']: each [B, S, H, D / H]."""
        keys = self._turned(self._split(self.key(memory)), positions)
        return keys, self._split(self.value(memory))

    def attend(
        self,
        x: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        mask: jax.Array,
        *,
        train: bool,
        positions: jax.Array | None = None,
    ) -> jax.Array:
        """Attends from x [B, T, D] to keys and values; see `__call__`."""
        queries = self._turned(self._split(self.query(x)), positions)
        queries = queries * (self.features // self.heads) ** -0.5
        by_head = ((0, 2), (0, 2))
        scores = general(queries, keys, (((3,), (3,)), by_head), None, jnp.float32)  # [B, H, T, S]
        found = self.drop(weights(scores, mask[:, None]), deterministic=not train)
        by_head = ((0, 1), (0, 2))
        y = general(found.astype(self.dtype), values, (((3,), (1,)), by_head))  # [B, H, T, D / H]
        y = self.out(y.swapaxes(1, 2).reshape(*x.shape[:2], self.features))
        return jnp.where(jnp.any(mask, axis=-1, keepdims=True), y, 0)

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.heads, -1)

    def _turned(self, x: jax.Array, positions: jax.Array | None) -> jax.Array:
        if not self.rotary:
            return x
        return rotate(x, jnp.arange(x.shape[1]) if positions is None else positions)
