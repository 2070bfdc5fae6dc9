"""Recurrent language model (Mikolov et al., 2010; with LSTM, Sundermeyer et al., 2012).

Shapes: B examples of T positions, V tokens in the vocabulary, F features.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.nn.cells import State
from jaxdl.nn.dense import Dense
from jaxdl.nn.dropout import Dropout
from jaxdl.nn.embedding import logits
from jaxdl.nn.padding import lengths
from jaxdl.nn.recurrent import Recurrent


class RecurrentLanguageModel(nn.Module):
    """Recurrent language model: tokens [B, T] -> next-token logits, float32 [B, T, V].

    Its methods are those of `jaxdl.models.transformer_lm.LanguageModel`.

    Attributes:
      vocabulary: V.
      cell: recurrent cell, one of `jaxdl.nn.cells.CELLS`.
      features: F, features of token embeddings and states.
      layers: number of recurrent layers.
      dropout: dropout rate before, between and after the layers (Zaremba et al., 2014).
      tie: whether the output layer shares the token embeddings (Press & Wolf, 2017).
      dtype: dtype of the computation; parameters, states and logits are float32.
    """

    vocabulary: int
    cell: str
    features: int
    layers: int = 1
    dropout: float = 0.0
    tie: bool = False
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Creates the layers."""
        self.embed = nn.Embed(self.vocabulary, self.features, dtype=self.dtype)
        self.recurrent = Recurrent(
            self.cell, self.features, self.layers, dropout=self.dropout, dtype=self.dtype
        )
        self.drop = Dropout(self.dropout)
        if not self.tie:
            self.out = Dense(self.vocabulary, dtype=self.dtype)

    def __call__(self, tokens: jax.Array, *, train: bool) -> jax.Array:
        """Predicts the token after each of tokens [B, T]; training applies dropout."""
        return self._run(tokens, lengths(tokens), None, train)[0]

    @nn.nowrap
    def start(self, examples: int) -> tuple[State, ...]:
        """Initial states: zeros, for that many examples."""
        return Recurrent(self.cell, self.features, self.layers).start(examples)

    def next(
        self, tokens: jax.Array, states: tuple[State, ...], position: jax.Array | int = 0
    ) -> tuple[jax.Array, tuple[State, ...]]:
        """Decodes one more token.

        Args:
          tokens: int [B].
          states: states of `start` or of the last call.
          position: not used; there for the interface of `LanguageModel`.

        Returns:
          Next-token logits float32 [B, V], and the states.
        """
        del position
        counts = jnp.ones(tokens.shape, jnp.int32)
        y, states = self._run(tokens[:, None], counts, states, False)
        return y[:, 0], states

    def _run(
        self,
        tokens: jax.Array,
        counts: jax.Array,
        states: tuple[State, ...] | None,
        train: bool,
    ) -> tuple[jax.Array, tuple[State, ...]]:
        """Next-token logits [B, T, V], and the states after the last position."""
        # Scaled to about unit variance, for which the kernels' initialisation is made.
        x = self.embed(tokens) * self.features**0.5
        x = self.drop(x, deterministic=not train)
        x, states = self.recurrent(x, counts, train=train, carry=states)
        x = self.drop(x, deterministic=not train)
        if not self.tie:
            return self.out(x).astype(jnp.float32), states
        return logits(x, self.embed.embedding.astype(self.dtype)), states
