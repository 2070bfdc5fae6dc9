"""Multi-head attention (Vaswani et al., 2017) and rotary position embeddings (Su et al., 2021).

Shapes: B examples, T query positions, S key positions, D features, H heads.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.errors import UserError
from jaxdl.nn.dense import Dense, dot_general
from jaxdl.nn.dropout import Dropout

# Wavelengths of position embeddings grow from 2 pi to BASE * 2 pi, in both papers.
BASE = 10_000


def apply_rotary(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Rotary position embedding (Su et al., 2021).

    Rotates each pair of neighbouring features by an angle proportional to the position. The dot
    product of two rotated vectors then depends on the distance between their positions only.

    Args:
      x: queries or keys [B, T, H, d], d even.
      positions: int [T].

    Returns:
      Array of the shape and dtype of `x`; the rotation is computed in float32.
    """
    half = x.shape[-1] // 2
    angles = positions[:, None] * BASE ** -(jnp.arange(half) / half)[None]
    cos, sin = (f(angles)[None, :, None] for f in (jnp.cos, jnp.sin))
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], half, 2)
    real, imag = jnp.moveaxis(pairs, -1, 0)
    rotated = real * cos - imag * sin, real * sin + imag * cos
    return jnp.stack(rotated, axis=-1).reshape(x.shape).astype(x.dtype)


def attention_weights(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """Attention weights: masked softmax over the last axis, in float32.

    Rows whose mask is all False have weights of zero, and gradients of zero.

    Args:
      scores: attention scores [..., S].
      mask: bool array that broadcasts to the shape of `scores`; False hides a position.

    Returns:
      float32 [..., S].

    >>> attention_weights(jnp.zeros((1, 4)), jnp.array([True, True, False, False])).tolist()
    [[0.5, 0.5, 0.0, 0.0]]
    """
    scores = scores.astype(jnp.float32)
    masked = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    return jnp.where(mask, nn.softmax(masked), 0)


class MultiHeadAttention(nn.Module):
    """Multi-head attention; self-attention when `memory` is `x`.

    To attend to a memory that grows, as in decoding, cache the result of `project` and call
    `attend`.

    Attributes:
      features: D, size of the output and of all heads together.
      heads: H, must divide `features`.
      dropout: dropout rate of the attention weights.
      rotary: whether queries and keys get rotary position embeddings.
      dtype: dtype of the matrix products; the softmax is in float32.
    """

    features: int
    heads: int
    dropout: float = 0.0
    rotary: bool = False
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Creates the query, key, value and output projections.

        Raises:
          UserError: `heads` does not divide `features`, or the features per head are odd while
            `rotary` is set.
        """
        if self.features % self.heads:
            raise UserError(
                f"heads={self.heads} does not divide features={self.features}: "
                "change one of the two"
            )
        if self.rotary and self.features // self.heads % 2:
            raise UserError(
                f"{self.features // self.heads} features per head is odd, but rotary positions "
                "need an even number: change heads or features"
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
        """Attends from each position of `x` to the positions of `memory`.

        Args:
          x: queries [B, T, D].
          memory: source of keys and values [B, S, D'].
          mask: bool [B or 1, T or 1, S], True where a query may see a key. A query that may see
            no key has an output of zero.
          train: whether to apply dropout.
          positions: int [T], positions of both `x` and `memory` for rotary embeddings (so S = T);
            None: 0, 1, 2, ...

        Returns:
          [B, T, D].
        """
        keys, values = self.project(memory, positions)
        return self.attend(x, keys, values, mask, train=train, positions=positions)

    def project(
        self, memory: jax.Array, positions: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Keys and values of a memory.

        Args:
          memory: [B, S, D'].
          positions: int [S], for rotary embeddings; None: 0, 1, 2, ...

        Returns:
          Keys and values, [B, S, H, D / H] each.
        """
        keys = self._rotate(self._split_heads(self.key(memory)), positions)
        return keys, self._split_heads(self.value(memory))

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
        """Attends from x [B, T, D] to keys and values of `project`; see `__call__`."""
        queries = self._rotate(self._split_heads(self.query(x)), positions)
        queries = queries * (self.features // self.heads) ** -0.5
        batch_axes = ((0, 2), (0, 2))
        scores = dot_general(queries, keys, (((3,), (3,)), batch_axes), None, jnp.float32)
        # scores: [B, H, T, S]
        attention = self.drop(attention_weights(scores, mask[:, None]), deterministic=not train)
        batch_axes = ((0, 1), (0, 2))
        y = dot_general(attention.astype(self.dtype), values, (((3,), (1,)), batch_axes))
        # y: [B, H, T, D / H]
        y = self.out(y.swapaxes(1, 2).reshape(*x.shape[:2], self.features))
        return jnp.where(jnp.any(mask, axis=-1, keepdims=True), y, 0)

    def _split_heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.heads, -1)

    def _rotate(self, x: jax.Array, positions: jax.Array | None) -> jax.Array:
        if not self.rotary:
            return x
        return apply_rotary(x, jnp.arange(x.shape[1]) if positions is None else positions)
