"""Classifiers of token sequences by recurrent networks.

Shapes: B examples of T positions, F features, K classes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.nn.dense import Dense
from jaxdl.nn.dropout import Dropout
from jaxdl.nn.padding import inside, lengths
from jaxdl.nn.recurrent import Recurrent

POOLS = ("max", "mean", "last")


def pooled(y: jax.Array, counts: jax.Array, ends: jax.Array, kind: str) -> jax.Array:
    """One vector of each sequence.

    Args:
      y: [B, T, F].
      counts: [B], at least 1: the positions that count, the first ones.
      ends: [B, F], what `last` means: the states that the layer ends with, both ways.
      kind: of `POOLS`; max and mean are over the positions that count.

    Returns:
      [B, F].
    """
    inner = inside(counts, y.shape[1])[..., None]
    if kind == "max":
        return jnp.max(jnp.where(inner, y, -jnp.inf), axis=1)
    if kind == "mean":
        total = jnp.sum(jnp.where(inner, y, 0).astype(jnp.float32), axis=1)
        return (total / counts[:, None]).astype(y.dtype)
    return ends


class SequenceClassifier(nn.Module):
    """Tokens int32 [B, T], 0 for padding at the end -> logits [B, K], float32.

    Embeddings, recurrent layers, pooling over positions, a linear layer. A row of padding alone
    counts as one token.

    Attributes:
      num_classes: K.
      vocabulary: tokens that are told apart.
      embedding: features of a token.
      cell: of `recurrent.CELLS`.
      features: of each recurrent layer, in each direction.
      layers: how many.
      bidirectional: whether they read both ways.
      pool: of `POOLS`.
      dropout: rate of the embeddings, between layers and of what is pooled.
      dtype: of the computation; parameters and logits are float32.
    """

    num_classes: int
    vocabulary: int
    embedding: int = 128
    cell: str = "lstm"
    features: int = 64
    layers: int = 1
    bidirectional: bool = True
    pool: str = "max"
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array, *, train: bool) -> jax.Array:
        """Classifies tokens [B, T]."""
        counts = jnp.maximum(lengths(tokens), 1)
        x = nn.Embed(self.vocabulary, self.embedding, dtype=self.dtype)(tokens)
        x = Dropout(self.dropout, deterministic=not train)(x)
        layers = Recurrent(
            self.cell, self.features, self.layers, self.bidirectional, self.dropout, self.dtype
        )
        y, states = layers(x, counts, train=train)
        h = [state[0] for state in states[-(1 + self.bidirectional) :]]
        y = pooled(y, counts, jnp.concatenate(h, axis=-1).astype(y.dtype), self.pool)
        y = Dropout(self.dropout, deterministic=not train)(y)
        return Dense(self.num_classes, dtype=self.dtype)(y).astype(jnp.float32)
