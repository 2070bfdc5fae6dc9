"""A Transformer that translates: an encoder, and a decoder that attends to it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.nn.dense import Dense
from jaxdl.nn.padding import PAD
from jaxdl.nn.transformer import (
    Caches,
    Decoder,
    Encoder,
    Pair,
    block_maker,
    empty_caches,
    token_table,
)


class Translator(nn.Module):
    """(source [B, S], target [B, T]) -> logits of the token after each of the target's, float32.

    Attributes:
      share: source and target have one table of tokens.
      tie: logits are products with the vectors of the target's tokens.

    The others are those of `LanguageModel`; `layers` is of the encoder and of the decoder.
    """

    vocabulary: int
    layers: int
    heads: int
    features: int
    hidden: int
    length: int
    positions: str = "sinusoidal"
    norm: str = "pre"
    dropout: float = 0.0
    tie: bool = True
    share: bool = True
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Makes the tables and the blocks."""
        self.target = token_table(self)
        self.source = self.target if self.share else token_table(self)
        self.encoder = Encoder(self.layers, block_maker(self), self.dtype)
        self.decoder = Decoder(self.layers, block_maker(self, cross=True), self.dtype)
        if not self.tie:
            self.out = Dense(self.vocabulary, dtype=self.dtype)

    def __call__(self, x: Pair, *, train: bool) -> jax.Array:
        """Predicts [B, T, V] from (source, target); the target begins with BEGIN."""
        source, target = x
        memory, mask = self._encode(source, train)
        y = self.decoder(self.target(target, train=train), memory, mask, train=train)
        return self._logits(y)

    def encode(self, source: jax.Array) -> Caches:
        """Encodes source [B, S] into the caches that decoding begins with."""
        memories = self.decoder.remember(*self._encode(source, False))
        return Caches(empty_caches(self, source.shape[0]), memories)

    def next(
        self, tokens: jax.Array, caches: Caches, position: jax.Array | int
    ) -> tuple[jax.Array, Caches]:
        """As that of `LanguageModel`, for tokens [B] of the target."""
        x = self.target(tokens[:, None], train=False, first=position)
        x, caches = self.decoder.next(x, caches, position)
        return self._logits(x)[:, 0], caches

    def _encode(self, source: jax.Array, train: bool) -> Pair:
        mask = (source != PAD)[:, None]
        return self.encoder(self.source(source, train=train), mask, train=train), mask

    def _logits(self, x: jax.Array) -> jax.Array:
        return self.target.logits(x) if self.tie else self.out(x).astype(jnp.float32)
