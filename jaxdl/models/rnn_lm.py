"""A recurrent language model (Mikolov et al., 2010; with LSTM, Sundermeyer et al., 2012).

Shapes: B examples of T positions, V tokens, F features.
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
    """Tokens [B, T] -> logits of the token after each, float32 [B, T, V].

    It has the methods of `jaxdl.models.transformer_lm.LanguageModel`.

    Attributes:
      vocabulary: V.
      cell: one of `jaxdl.nn.cells.CELLS`.
      features: F, of tokens and states.
      layers: of cells.
      dropout: rate before, between and after the layers (Zaremba et al., 2014).
      tie: the logits are products with the tokens' own vectors (Press & Wolf, 2017).
      dtype: of the computation; parameters, states and logits are float32.
    """

    vocabulary: int
    cell: str
    features: int
    layers: int = 1
    dropout: float = 0.0
    tie: bool = False
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Makes the layers."""
        self.embed = nn.Embed(self.vocabulary, self.features, dtype=self.dtype)
        self.recurrent = Recurrent(
            self.cell, self.features, self.layers, dropout=self.dropout, dtype=self.dtype
        )
        self.drop = Dropout(self.dropout)
        if not self.tie:
            self.out = Dense(self.vocabulary, dtype=self.dtype)

    def __call__(self, tokens: jax.Array, *, train: bool) -> jax.Array:
        """Predicts what follows tokens [B, T]; training draws dropout."""
        return self._run(tokens, lengths(tokens), None, train)[0]

    @nn.nowrap
    def start(self, examples: int) -> tuple[State, ...]:
        """The states before the first token: zeros."""
        return Recurrent(self.cell, self.features, self.layers).start(examples)

    def next(
        self, tokens: jax.Array, states: tuple[State, ...], position: jax.Array | int = 0
    ) -> tuple[jax.Array, tuple[State, ...]]:
        """Logits of the token after one more token [B], float32 [B, V], and the states."""
        del position
        one = jnp.ones(tokens.shape, jnp.int32)
        found, states = self._run(tokens[:, None], one, states, False)
        return found[:, 0], states

    def _run(
        self,
        tokens: jax.Array,
        lengths: jax.Array,
        states: tuple[State, ...] | None,
        train: bool,
    ) -> tuple[jax.Array, tuple[State, ...]]:
        # Of size about 1, as the inputs of kernels that start for that.
        x = self.embed(tokens) * self.features**0.5
        x = self.drop(x, deterministic=not train)
        x, states = self.recurrent(x, lengths, train=train, carry=states)
        x = self.drop(x, deterministic=not train)
        if not self.tie:
            return self.out(x).astype(jnp.float32), states
        return logits(x, self.embed.embedding.astype(self.dtype)), states
