"""Recurrent translation with attention (Bahdanau et al., 2015; Luong et al., 2015).

Shapes: B examples, S source positions, T target positions, V tokens in the vocabulary, F features.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.errors import UserError
from jaxdl.nn.attention import attention_weights
from jaxdl.nn.cells import CELLS, State
from jaxdl.nn.dense import Dense, dot_general
from jaxdl.nn.dropout import Dropout
from jaxdl.nn.padding import inside, lengths
from jaxdl.nn.recurrent import Recurrent

ATTENTIONS = ("additive", "multiplicative")


class Memory(NamedTuple):
    """Encoded source that the decoder attends to; all arrays have the examples on their first axis.

    Attributes:
      annotations: outputs of the encoder in both directions, [B, S, 2 * F].
      keys: projected annotations, [B, S, F]: U h of Bahdanau et al., or W h of Luong et al.
      mask: bool [B, 1, S], False at padding.
    """

    annotations: jax.Array
    keys: jax.Array
    mask: jax.Array


class Seq2Seq(nn.Module):
    """Sequence-to-sequence: (source [B, S], target [B, T]) -> next-token logits, float32 [B, T, V].

    The encoder is a bidirectional recurrent layer, with annotations h. The decoder has states s:

    - `additive` attention (Bahdanau) has scores v tanh(W s + U h), with the state s before a
      position. The context is an input of the decoder's cell at that position.
    - `multiplicative` attention (Luong's "general", without input feeding) has scores s W h. The
      decoder's cells run first, and s is their output.

    Both predict from tanh(C [s, c]), where the context c is the mean of the annotations by the
    attention weights.

    Attributes:
      vocabulary: V, of source and target; each has its own embeddings.
      cell: recurrent cell, one of `jaxdl.nn.cells.CELLS`.
      features: F, features of embeddings and states.
      attention: kind of attention, one of `ATTENTIONS`.
      dropout: dropout rate of the embeddings, and before the output layer.
      dtype: dtype of the products; parameters, states and logits are float32.
    """

    vocabulary: int
    cell: str
    features: int
    attention: str = "additive"
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Creates the layers.

        Raises:
          UserError: `attention` is not one of `ATTENTIONS`, or `cell` not one of `CELLS`.
        """
        for name, choices in (("attention", ATTENTIONS), ("cell", tuple(CELLS))):
            if getattr(self, name) not in choices:
                raise UserError(f"{name}={getattr(self, name)}: give one of {', '.join(choices)}")
        F, dtype = self.features, self.dtype
        self.source, self.target = (nn.Embed(self.vocabulary, F, dtype=dtype) for _ in range(2))
        self.encoder = Recurrent(self.cell, F, bidirectional=True, dtype=dtype)
        self.decoder = Recurrent(self.cell, F, dtype=dtype)
        self.bridge = Dense(F * CELLS[self.cell].states, dtype=dtype)
        self.key = Dense(F, use_bias=False, dtype=dtype)
        if self.attention == "additive":
            self.query, self.score = Dense(F, dtype=dtype), Dense(1, use_bias=False, dtype=dtype)
        self.combine = Dense(F, use_bias=False, dtype=dtype)
        self.out = Dense(self.vocabulary, dtype=dtype)
        self.drop = Dropout(self.dropout)

    def __call__(self, x: tuple[jax.Array, jax.Array], *, train: bool) -> jax.Array:
        """Next-token logits [B, T, V] of (source, target); the target begins with BEGIN."""
        return self._run(x, train)[0]

    def weights(self, x: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Attention weights of each target position over the source, [B, T, S]."""
        return self._run(x, False)[1]

    def encode(self, source: jax.Array) -> tuple[Memory, State]:
        """Encodes source [B, S] into the decoder's memory and initial state."""
        return self._encode(source, False)

    def next(
        self, tokens: jax.Array, state: tuple[Memory, State], position: jax.Array | int = 0
    ) -> tuple[jax.Array, tuple[Memory, State]]:
        """Decodes one more token of the target.

        Args:
          tokens: int [B].
          state: memory and decoder state, of `encode` or of the last call.
          position: not used; there for the interface of `LanguageModel`.

        Returns:
          Next-token logits float32 [B, V], and (memory, decoder state).
        """
        del position
        memory, decoder_state = state
        logits, _, decoder_state = self._decode(tokens[:, None], memory, decoder_state, False)
        return logits[:, 0], (memory, decoder_state)

    def _run(self, x: tuple[jax.Array, jax.Array], train: bool) -> tuple[jax.Array, jax.Array]:
        """Logits [B, T, V] and attention weights [B, T, S] of (source, target)."""
        source, target = x
        logits, attention, _ = self._decode(target, *self._encode(source, train), train)
        return logits, attention

    def _embed(self, table: nn.Embed, tokens: jax.Array, train: bool) -> jax.Array:
        return self.drop(table(tokens) * self.features**0.5, deterministic=not train)

    def _encode(self, source: jax.Array, train: bool) -> tuple[Memory, State]:
        """Memory of a source [B, S], and the decoder's initial state from the final states."""
        x, counts = self._embed(self.source, source, train), lengths(source)
        annotations, ends = self.encoder(x, counts, train=train)
        last = jnp.concatenate([end[0] for end in ends], axis=-1)
        start = jnp.tanh(self.bridge(last).astype(jnp.float32))
        mask = inside(counts, source.shape[1])[:, None]
        memory = Memory(annotations, self.key(annotations), mask)
        return memory, tuple(jnp.split(start, CELLS[self.cell].states, axis=-1))

    def _decode(
        self, target: jax.Array, memory: Memory, state: State, train: bool
    ) -> tuple[jax.Array, jax.Array, State]:
        """Logits [B, T, V], attention weights [B, T, S] and the state after the last position."""
        x = self._embed(self.target, target, train)
        if self.attention == "multiplicative":
            counts = jnp.full(x.shape[0], x.shape[1], jnp.int32)
            h, (state,) = self.decoder(x, counts, train=train, carry=(state,))
            scores = dot_general(h, memory.keys, (((2,), (2,)), ((0,), (0,))), None, jnp.float32)
            attention = attention_weights(scores, memory.mask)
            context = self._context(attention, memory)
        else:
            h, context, attention, state = self._decode_additive(x, memory, state)
        y = jnp.tanh(self.combine(jnp.concatenate([h, context], axis=-1)))
        logits = self.out(self.drop(y, deterministic=not train)).astype(jnp.float32)
        return logits, attention, state

    def _decode_additive(
        self, x: jax.Array, memory: Memory, state: State
    ) -> tuple[jax.Array, jax.Array, jax.Array, State]:
        """Attends, then runs the cell, position by position.

        Args:
          x: embedded target [B, T, F].
          memory: encoded source.
          state: decoder state before the first position.

        Returns:
          (outputs [B, T, F], contexts [B, T, 2 * F], attention weights [B, T, S], last state).
        """
        counts = jnp.ones(x.shape[0], jnp.int32)  # one position for each call of the decoder

        def position(model: "Seq2Seq", state: State, x: jax.Array) -> tuple[State, Any]:
            query = model.query(state[0])[:, None]
            scores = model.score(jnp.tanh(query + memory.keys))[..., 0]  # [B, S]
            attention = attention_weights(scores[:, None], memory.mask)
            context = model._context(attention, memory)
            inputs = jnp.concatenate([x[:, None], context], axis=-1)
            h, (state,) = model.decoder(inputs, counts, train=False, carry=(state,))
            return state, (h[:, 0], context[:, 0], attention[:, 0])

        scan = nn.scan(
            position,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )
        state, (h, context, attention) = scan(self, state, x)
        return h, context, attention, state

    def _context(self, attention: jax.Array, memory: Memory) -> jax.Array:
        """Means of the annotations by attention weights [B, T, S]: [B, T, 2 * F]."""
        dimensions = (((2,), (1,)), ((0,), (0,)))
        return dot_general(attention.astype(self.dtype), memory.annotations, dimensions)
