"""Transformer for translation (Vaswani et al., 2017): an encoder, and a decoder that attends to it.

Shapes: B examples, S source positions, T target positions, V tokens in the vocabulary.
"""

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
    empty_caches,
    make_block,
    make_embedding,
)


class Translator(nn.Module):
    """Translator: (source [B, S], target [B, T]) -> next-token logits, float32 [B, T, V].

    Attributes not listed here are those of `transformer_lm.LanguageModel`.

    Attributes:
      layers: number of blocks of the encoder, and of the decoder.
      tie: whether the output layer shares the target's token embeddings.
      share: whether source and target share their token embeddings.
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
        """Creates the embeddings and the blocks."""
        self.target = make_embedding(self)
        self.source = self.target if self.share else make_embedding(self)
        self.encoder = Encoder(self.layers, make_block(self), self.dtype)
        self.decoder = Decoder(self.layers, make_block(self, cross=True), self.dtype)
        if not self.tie:
            self.out = Dense(self.vocabulary, dtype=self.dtype)

    def __call__(self, x: Pair, *, train: bool) -> jax.Array:
        """Next-token logits [B, T, V] of (source, target); the target begins with BEGIN."""
        source, target = x
        memory, mask = self._encode(source, train)
        y = self.decoder(self.target(target, train=train), memory, mask, train=train)
        return self._logits(y)

    def encode(self, source: jax.Array) -> Caches:
        """Encodes source [B, S] into the initial caches of decoding."""
        memories = self.decoder.remember(*self._encode(source, False))
        return Caches(empty_caches(self, source.shape[0]), memories)

    def next(
        self, tokens: jax.Array, caches: Caches, position: jax.Array | int
    ) -> tuple[jax.Array, Caches]:
        """Decodes one more token [B] of the target; see `LanguageModel.next`."""
        x = self.target(tokens[:, None], train=False, first=position)
        x, caches = self.decoder.next(x, caches, position)
        return self._logits(x)[:, 0], caches

    def _encode(self, source: jax.Array, train: bool) -> Pair:
        """Encoded source [B, S, D], and its mask bool [B, 1, S], False at padding."""
        mask = (source != PAD)[:, None]
        return self.encoder(self.source(source, train=train), mask, train=train), mask

    def _logits(self, x: jax.Array) -> jax.Array:
        return self.target.logits(x) if self.tie else self.out(x).astype(jnp.float32)
