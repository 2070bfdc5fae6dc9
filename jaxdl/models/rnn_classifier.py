"""Recurrent classifier of token sequences.

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


def pool_sequence(y: jax.Array, counts: jax.Array, ends: jax.Array, kind: str) -> jax.Array:
    """Pooling over positions: one vector for each sequence.

    Args:
      y: outputs of a recurrent layer, [B, T, F].
      counts: number of positions of each sequence, int [B], at least 1.
      ends: final states of the layer, of both directions if it has two, [B, F].
      kind: `max` or `mean` over the positions of a sequence, or `last` for `ends`.

    Returns:
      [B, F].
    """
    valid = inside(counts, y.shape[1])[..., None]
    if kind == "max":
        return jnp.max(jnp.where(valid, y, -jnp.inf), axis=1)
    if kind == "mean":
        total = jnp.sum(jnp.where(valid, y, 0).astype(jnp.float32), axis=1)
        return (total / counts[:, None]).astype(y.dtype)
    return ends


class SequenceClassifier(nn.Module):
    """Sequence classifier: tokens int32 [B, T], 0 for padding at the end -> logits float32 [B, K].

    Embeddings, recurrent layers, pooling over positions and a linear layer. A row of padding alone
    is treated as one token.

    Attributes:
      num_classes: K.
      vocabulary: number of different tokens.
      embedding: features of a token's embedding.
      cell: recurrent cell, one of `cells.CELLS`.
      features: features of each recurrent layer, in each direction.
      layers: number of recurrent layers.
      bidirectional: whether the layers run in both directions.
      pool: pooling over positions, one of `POOLS`.
      dropout: dropout rate after the embeddings, between layers and after the pooling.
      dtype: dtype of the computation; parameters and logits are float32.
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
        """Classifies tokens [B, T]; training applies dropout."""
        counts = jnp.maximum(lengths(tokens), 1)
        x = nn.Embed(self.vocabulary, self.embedding, dtype=self.dtype)(tokens)
        x = Dropout(self.dropout, deterministic=not train)(x)
        layers = Recurrent(
            self.cell, self.features, self.layers, self.bidirectional, self.dropout, self.dtype
        )
        y, states = layers(x, counts, train=train)
        h = [state[0] for state in states[-(1 + self.bidirectional) :]]
        y = pool_sequence(y, counts, jnp.concatenate(h, axis=-1).astype(y.dtype), self.pool)
        y = Dropout(self.dropout, deterministic=not train)(y)
        return Dense(self.num_classes, dtype=self.dtype)(y).astype(jnp.float32)
