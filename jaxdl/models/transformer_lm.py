"""A Transformer language model."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.nn.dense import Dense
from jaxdl.nn.transformer import Caches, Decoder, block_maker, empty_caches, token_table


class LanguageModel(nn.Module):
    """Tokens [B, T] -> logits of the token after each, float32 [B, T, V].

    Attributes:
      vocabulary: V.
      layers: blocks.
      heads: H.
      features: D.
      hidden: units inside a block.
      length: L.
      positions: one of `embedding.POSITIONS`.
      norm: one of `NORMS`.
      dropout: rate of the embedding, of each branch, and of the weights of attention.
      tie: the logits are products with the tokens' own vectors (Press & Wolf, 2017).
      dtype: of the computation; parameters and logits are float32.
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
        """Makes the tables and the blocks."""
        self.tokens = token_table(self)
        self.decoder = Decoder(self.layers, block_maker(self), self.dtype)
        if not self.tie:
            self.out = Dense(self.vocabulary, dtype=self.dtype)

    def __call__(self, tokens: jax.Array, *, train: bool) -> jax.Array:
        """Predicts what follows tokens [B, T], T at most L; training draws dropout."""
        return self._logits(self.decoder(self.tokens(tokens, train=train), train=train))

    @nn.nowrap
    def start(self, examples: int) -> Caches:
        """Empty caches, for the first token."""
        return Caches(empty_caches(self, examples), (None,) * self.layers)

    def next(
        self, tokens: jax.Array, caches: Caches, position: jax.Array | int
    ) -> tuple[jax.Array, Caches]:
        """Logits of the token after one more token.

        Args:
          tokens: [B], those at `position`.
          caches: of all positions before.
          position: of these tokens, below L.

        Returns:
          Logits float32 [B, V], and the caches.
        """
        x = self.tokens(tokens[:, None], train=False, first=position)
        x, caches = self.decoder.next(x, caches, position)
        return self._logits(x)[:, 0], caches

    def _logits(self, x: jax.Array) -> jax.Array:
        return self.tokens.logits(x) if self.tie else self.out(x).astype(jnp.float32)
