"""Tokens as vectors, with where they stand, and vectors as logits of tokens.

Shapes: B examples of T positions with D features; V tokens; L positions at most.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.errors import UserError
from jaxdl.nn.attention import BASE
from jaxdl.nn.dense import general
from jaxdl.nn.dropout import Dropout

POSITIONS = ("sinusoidal", "learned", "rotary", "none")


class Tokens(nn.Module):
    """Tokens as vectors with their positions, and vectors as logits.

    Attributes:
      vocabulary: V.
      features: D.
      length: L.
      positions: one of `POSITIONS`.
      dropout: rate after both are added.
      dtype: of the computation.
    """

    vocabulary: int
    features: int
    length: int
    positions: str
    dropout: float
    dtype: DTypeLike

    def setup(self) -> None:
        """Makes the tables.

        Raises:
          UserError: an unknown kind of positions.
        """
        if self.positions not in POSITIONS:
            raise UserError(f"positions={self.positions}: give one of {', '.join(POSITIONS)}")
        self.embed = nn.Embed(self.vocabulary, self.features, dtype=self.dtype)
        if self.positions == "learned":
            # As large as the sinusoids that they stand for.
            large = nn.initializers.normal(0.5**0.5)
            self.learned = self.param("positions", large, (self.length, self.features))
        self.drop = Dropout(self.dropout)

    def __call__(self, tokens: jax.Array, *, train: bool, first: jax.Array | int = 0) -> jax.Array:
        """[B, T] -> [B, T, D], for positions from `first` on.

        Raises:
          UserError: there are more tokens than L.
        """
        T = tokens.shape[1]
        if self.length < T:
            raise UserError(f"{T} tokens are more than length={self.length}: cut them, or raise it")
        x = self.embed(tokens) * self.features**0.5
        if self.positions == "sinusoidal":
            x = x + sinusoids(first + jnp.arange(T), self.features).astype(x.dtype)[None]
        if self.positions == "learned":
            here = jax.lax.dynamic_slice_in_dim(self.learned, first, T)
            x = x + here.astype(x.dtype)[None]
        return self.drop(x, deterministic=not train)

    def logits(self, x: jax.Array) -> jax.Array:
        """[..., D] -> float32 [..., V], by the vectors of the tokens."""
        return logits(x, self.embed.embedding.astype(self.dtype))


def logits(x: jax.Array, table: jax.Array) -> jax.Array:
    """Products of x [..., D] with a table [V, D] of the same type: float32 [..., V]."""
    # As matrices, and the table turned: else the gradient turns the logits, on a CPU.
    rows, dimensions = x.reshape(-1, x.shape[-1]), (((1,), (0,)), ((), ()))
    y = general(rows, table.T, dimensions, preferred_element_type=jnp.float32)
    return y.reshape(*x.shape[:-1], len(table))


def sinusoids(positions: jax.Array, features: int) -> jax.Array:
    """Sines and cosines in turns, of wavelengths from 2 pi to 20,000 pi: [T] -> [T, D]."""
    pairs = -(-features // 2)
    angles = positions[:, None] * BASE ** -(2 * jnp.arange(pairs) / features)[None]
    both = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return both.reshape(len(positions), -1)[:, :features]
