"""Transformer language model.

Shapes: B examples of T positions; V tokens in the vocabulary; D features; H heads; L positions at
most.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.nn.dense import Dense
from jaxdl.nn.transformer import Caches, Decoder, empty_caches, make_block, make_embedding


class LanguageModel(nn.Module):
    """Transformer language model: tokens [B, T] -> next-token logits, float32 [B, T, V].

    Attributes:
      vocabulary: V.
      layers: number of blocks.
      heads: H, must divide `features`.
      features: D.
      hidden: hidden units of each block's feed-forward network.
      length: L.
      positions: kind of position embedding, one of `embedding.POSITIONS`.
      norm: place of the normalisation, one of `transformer.NORMS`.
      dropout: dropout rate of the embedding, of each branch and of the attention weights.
      tie: whether the output layer shares the token embeddings (Press & Wolf, 2017).
      dtype: dtype of the computation; parameters and logits are float32.
    """

    vocabulary: int
    layers: int
    heads: int
    features: int
    hidden: int
    length: int
    positions: str = "learned"
    norm: str = "pre"
    dropout: float = 0.0
    tie: bool = True
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Creates the embeddings and the blocks."""
        self.tokens = make_embedding(self)
        self.decoder = Decoder(self.layers, make_block(self), self.dtype)
        if not self.tie:
            self.out = Dense(self.vocabulary, dtype=self.dtype)

    def __call__(self, tokens: jax.Array, *, train: bool) -> jax.Array:
        """Predicts the token after each of tokens [B, T], T <= L; training applies dropout."""
        return self._logits(self.decoder(self.tokens(tokens, train=train), train=train))

    @nn.nowrap
    def start(self, examples: int) -> Caches:
        """Empty caches for the first token, for that many examples."""
        return Caches(empty_caches(self, examples), (None,) * self.layers)

    def next(
        self, tokens: jax.Array, caches: Caches, position: jax.Array | int
    ) -> tuple[jax.Array, Caches]:
        """Decodes one more token.

        Args:
          tokens: int [B], the tokens at `position`.
          caches: caches of all positions before, of `start` or of the last call.
          position: position of these tokens, below L.

        Returns:
          Next-token logits float32 [B, V], and the caches with this position.
        """
        x = self.tokens(tokens[:, None], train=False, first=position)
        x, caches = self.decoder.next(x, caches, position)
        return self._logits(x)[:, 0], caches

    def _logits(self, x: jax.Array) -> jax.Array:
        return self.tokens.logits(x) if self.tie else self.out(x).astype(jnp.float32)
