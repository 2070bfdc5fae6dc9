"""Recurrent translation with attention: Bahdanau et al. (2015), and Luong et al. (2015).

Shapes: B examples, S positions of a source, T of a target, V tokens, F features.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.errors import UserError
from jaxdl.nn.attention import weights
from jaxdl.nn.cells import CELLS, State
from jaxdl.nn.dense import Dense, general
from jaxdl.nn.dropout import Dropout
from jaxdl.nn.padding import inside, lengths
from jaxdl.nn.recurrent import Recurrent

ATTENTIONS = ("additive", "multiplicative")


class Memory(NamedTuple):
    """A decoder's view of a source; every leaf has the examples first."""

    annotations: jax.Array  # [B, S, 2 * F], of both directions
    keys: jax.Array  # [B, S, F], U h of the papers, or W h
    mask: jax.Array  # bool [B, 1, S]


class Seq2Seq(nn.Module):
    """(source [B, S], target [B, T]) -> logits of the token after each of the target's, float32.

    The encoder is recurrent in both directions. `additive`: attention by the state before a
    position, v tanh(W s + U h), is an input of the decoder's cell. `multiplicative`: the cells run
    first, and attend by what they put out, s W h (Luong's "general", without input feeding). Both
    predict from tanh(C [s, c]), c being the mean of the annotations that the weights give.

    Attributes:
      vocabulary: V, of source and target, each with vectors of its own.
      cell: one of `jaxdl.nn.cells.CELLS`.
      features: F, of vectors and states.
      attention: one of `ATTENTIONS`.
      dropout: rate of the vectors, and before the logits.
      dtype: of the products; parameters, states and logits are float32.
    """

    vocabulary: int
    cell: str
    features: int
    attention: str = "additive"
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Makes the layers.

        Raises:
          UserError: an unknown kind of attention, or cell.
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
        """Predicts [B, T, V]; the target begins with BEGIN. Training draws dropout."""
        return self._run(x, train)[0]

    def weights(self, x: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Attention of each position of the target to each of the source: [B, T, S]."""
        return self._run(x, False)[1]

    def encode(self, source: jax.Array) -> tuple[Memory, State]:
        """Encodes source [B, S]: the memory that decoding sees, and its first state."""
        return self._encode(source, False)

    def next(
        self, tokens: jax.Array, state: tuple[Memory, State], position: jax.Array | int = 0
    ) -> tuple[jax.Array, tuple[Memory, State]]:
        """Logits after one more token [B] of the target, float32 [B, V], and the state."""
        del position
        memory, before = state
        logits, _, after = self._decode(tokens[:, None], memory, before, False)
        return logits[:, 0], (memory, after)

    def _run(self, x: tuple[jax.Array, jax.Array], train: bool) -> tuple[jax.Array, jax.Array]:
        source, target = x
        logits, found, _ = self._decode(target, *self._encode(source, train), train)
        return logits, found

    def _embed(self, table: nn.Embed, tokens: jax.Array, train: bool) -> jax.Array:
        return self.drop(table(tokens) * self.features**0.5, deterministic=not train)

    def _encode(self, source: jax.Array, train: bool) -> tuple[Memory, State]:
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
        """Logits [B, T, V], weights [B, T, S] and the state after the last position."""
        x = self._embed(self.target, target, train)
        if self.attention == "multiplicative":
            every = jnp.full(x.shape[0], x.shape[1], jnp.int32)
            h, (state,) = self.decoder(x, every, train=train, carry=(state,))
            scores = general(h, memory.keys, (((2,), (2,)), ((0,), (0,))), None, jnp.float32)
            found = weights(scores, memory.mask)
            context = self._context(found, memory)
        else:
            h, context, found, state = self._each(x, memory, state)
        y = jnp.tanh(self.combine(jnp.concatenate([h, context], axis=-1)))
        logits = self.out(self.drop(y, deterministic=not train)).astype(jnp.float32)
        return logits, found, state

    def _each(
        self, x: jax.Array, memory: Memory, state: State
    ) -> tuple[jax.Array, jax.Array, jax.Array, State]:
        """Attends, then runs the cell, position by position."""
        one = jnp.ones(x.shape[0], jnp.int32)

        def position(model: Any, state: State, x: jax.Array) -> tuple[State, Any]:
            query = model.query(state[0])[:, None]
            scores = model.score(jnp.tanh(query + memory.keys))[..., 0]  # [B, S]
            found = weights(scores[:, None], memory.mask)
            context = model._context(found, memory)
            given = jnp.concatenate([x[:, None], context], axis=-1)
            h, (state,) = model.decoder(given, one, train=False, carry=(state,))
            return state, (h[:, 0], context[:, 0], found[:, 0])

        scan = nn.scan(
            position,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )
        state, (h, context, found) = scan(self, state, x)
        return h, context, found, state

    def _context(self, found: jax.Array, memory: Memory) -> jax.Array:
        """The means of the annotations by weights [B, T, S]: [B, T, 2 * F]."""
        dimensions = (((2,), (1,)), ((0,), (0,)))
        return general(found.astype(self.dtype), memory.annotations, dimensions)
