"""Token and position embeddings, and output logits by the tied token embeddings.

Shapes: B examples of T positions with D features; V tokens in the vocabulary; L positions at most.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.errors import UserError
from jaxdl.nn.attention import BASE
from jaxdl.nn.dense import dot_general
from jaxdl.nn.dropout import Dropout

POSITIONS = ("sinusoidal", "learned", "rotary", "none")


class Tokens(nn.Module):
    """Embedding of tokens and their positions; `logits` is the tied output layer.

    With positions `rotary` or `none` only the tokens are embedded: rotary positions enter in the
    attention.

    Attributes:
      vocabulary: V.
      features: D.
      length: L.
      positions: kind of position embedding, one of `POSITIONS`.
      dropout: dropout rate after the sum of both embeddings.
      dtype: dtype of the computation.
    """

    vocabulary: int
    features: int
    length: int
    positions: str
    dropout: float
    dtype: DTypeLike

    def setup(self) -> None:
        """Creates the embedding tables.

        Raises:
          UserError: `positions` is not one of `POSITIONS`.
        """
        if self.positions not in POSITIONS:
            raise UserError(f"positions={self.positions}: give one of {', '.join(POSITIONS)}")
        self.embed = nn.Embed(self.vocabulary, self.features, dtype=self.dtype)
        if self.positions == "learned":
            # The standard deviation of the sinusoids that they replace.
            initializer = nn.initializers.normal(0.5**0.5)
            self.learned = self.param("positions", initializer, (self.length, self.features))
        self.drop = Dropout(self.dropout)

    def __call__(self, tokens: jax.Array, *, train: bool, first: jax.Array | int = 0) -> jax.Array:
        """Embeds tokens [B, T] -> [B, T, D].

        Args:
          tokens: int [B, T].
          train: whether to apply dropout.
          first: position of the first token.

        Raises:
          UserError: T is above L.
        """
        T = tokens.shape[1]
        if self.length < T:
            raise UserError(f"{T} tokens are more than length={self.length}: cut them, or raise it")
        x = self.embed(tokens) * self.features**0.5
        if self.positions == "sinusoidal":
            x = x + sinusoids(first + jnp.arange(T), self.features).astype(x.dtype)[None]
        if self.positions == "learned":
            learned = jax.lax.dynamic_slice_in_dim(self.learned, first, T)
            x = x + learned.astype(x.dtype)[None]
        return self.drop(x, deterministic=not train)

    def logits(self, x: jax.Array) -> jax.Array:
        """Logits by the token embeddings (tied weights): [..., D] -> float32 [..., V]."""
        return logits(x, self.embed.embedding.astype(self.dtype))


def logits(x: jax.Array, table: jax.Array) -> jax.Array:
    """Dot products of vectors with a table of embeddings.

    Args:
      x: [..., D].
      table: [V, D], of the dtype of `x`.

    Returns:
      float32 [..., V].
    """
    # As matrices, with the table transposed: otherwise the gradient transposes the logits on a CPU.
    rows, dimensions = x.reshape(-1, x.shape[-1]), (((1,), (0,)), ((), ()))
    y = dot_general(rows, table.T, dimensions, preferred_element_type=jnp.float32)
    return y.reshape(*x.shape[:-1], len(table))


def sinusoids(positions: jax.Array, features: int) -> jax.Array:
    """Sinusoidal position embeddings (Vaswani et al., 2017): [T] -> [T, D].

    Sines and cosines alternate, with wavelengths from 2 pi to 20,000 pi.

    Args:
      positions: [T].
      features: D; an odd number drops the last cosine.

    >>> sinusoids(jnp.array([0]), 4).tolist()
    [[0.0, 1.0, 0.0, 1.0]]
    """
    pairs = -(-features // 2)
    angles = positions[:, None] * BASE ** -(2 * jnp.arange(pairs) / features)[None]
    both = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return both.reshape(len(positions), -1)[:, :features]
