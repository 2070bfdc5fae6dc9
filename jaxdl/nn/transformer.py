"""Transformer blocks (Vaswani et al., 2017), pre-norm (Xiong et al., 2020) or post-norm.

What decoding keeps between two tokens is a pytree whose leaves all have the examples first.

Shapes: B examples of T positions, S of a source, with D features; V tokens; L positions at most.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.errors import UserError
from jaxdl.nn.activations import Activation
from jaxdl.nn.attention import MultiHeadAttention
from jaxdl.nn.dense import Dense
from jaxdl.nn.dropout import Dropout
from jaxdl.nn.embedding import Tokens
from jaxdl.nn.norm import LayerNorm

NORMS = ("pre", "post")
Pair = tuple[jax.Array, jax.Array]  # keys and values, [B, S, H, D / H] each


class Memory(NamedTuple):
    """Keys and values of a source for a block's cross-attention."""

    keys: jax.Array  # [B, S, H, D / H]
    values: jax.Array  # [B, S, H, D / H]
    mask: jax.Array  # bool [B, 1, S]


class Caches(NamedTuple):
    """Keys and values that decoding keeps: of the target, and of the source where there is one."""

    own: tuple[Pair, ...]  # of each block, [B, L, H, D / H]
    memories: tuple[Memory | None, ...]  # of each block


class Block(nn.Module):
    """Self-attention, attention to a memory where there is one, and two dense layers.

    Attributes:
      features: D.
      heads: H.
      hidden: units between the two dense layers.
      norm: of `NORMS`: x + f(norm(x)), or norm(x + f(x)) as in the paper.
      dropout: rate of each branch, and of the weights of attention.
      rotary: positions, in self-attention.
      cross: it attends to a memory, too.
      activation: between the two dense layers.
      dtype: of the computation.
    """

    features: int
    heads: int
    hidden: int
    norm: str = "pre"
    dropout: float = 0.0
    rotary: bool = False
    cross: bool = False
    activation: Activation = partial(nn.gelu, approximate=False)
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Makes the layers.

        Raises:
          UserError: an unknown norm.
        """
        if self.norm not in NORMS:
            raise UserError(f"norm={self.norm}: give one of {', '.join(NORMS)}")
        attention = partial(
            MultiHeadAttention, self.features, self.heads, self.dropout, dtype=self.dtype
        )
        self.attention = attention(rotary=self.rotary)
        if self.cross:
            self.cross_attention = attention()
        self.wide, self.narrow = (Dense(n, dtype=self.dtype) for n in (self.hidden, self.features))
        self.norms = [LayerNorm(dtype=self.dtype) for _ in range(2 + self.cross)]
        self.drop = Dropout(self.dropout)

    def __call__(
        self, x: jax.Array, mask: jax.Array, memory: Memory | None = None, *, train: bool
    ) -> jax.Array:
        """Maps x [B, T, D], of which each position sees what mask [B or 1, T or 1, T] says."""

        def own(x: jax.Array) -> jax.Array:
            return self.attention(x, x, mask, train=train)

        return self._rest(self._branch(0, x, own, train), memory, train)

    def next(
        self, x: jax.Array, cache: Pair, position: jax.Array | int, memory: Memory | None = None
    ) -> tuple[jax.Array, Pair]:
        """One more position, x [B, 1, D], which sees those before it, and itself."""
        here = jnp.asarray(position)[None]
        mask = (jnp.arange(cache[0].shape[1]) <= position)[None, None]
        grown: list[Pair] = []

        def own(x: jax.Array) -> jax.Array:
            new = self.attention.project(x, here)
            keys, values = (
                jax.lax.dynamic_update_slice_in_dim(old, a.astype(old.dtype), position, axis=1)
                for old, a in zip(cache, new, strict=True)
            )
            grown.append((keys, values))
            return self.attention.attend(x, keys, values, mask, train=False, positions=here)

        x = self._rest(self._branch(0, x, own, False), memory, False)
        return x, grown[0]

    def remember(self, memory: jax.Array, mask: jax.Array) -> Memory | None:
        """This block's keys and values of a memory [B, S, D], mask [B, 1, S]; None without one."""
        return Memory(*self.cross_attention.project(memory), mask) if self.cross else None

    def _rest(self, x: jax.Array, memory: Memory | None, train: bool) -> jax.Array:
        if memory is not None:

            def cross(x: jax.Array) -> jax.Array:
                return self.cross_attention.attend(x, *memory, train=train)

            x = self._branch(2, x, cross, train)
        return self._branch(1, x, lambda x: self.narrow(self.activation(self.wide(x))), train)

    def _branch(
        self, n: int, x: jax.Array, f: Callable[[jax.Array], jax.Array], train: bool
    ) -> jax.Array:
        before = self.norm == "pre"
        y = self.drop(f(self.norms[n](x) if before else x), deterministic=not train)
        return x + y if before else self.norms[n](x + y)


class Encoder(nn.Module):
    """Blocks that see what a mask says: (x [B, T, D], mask [B or 1, T or 1, T]) -> [B, T, D].

    Attributes:
      layers: blocks.
      block: makes one.
      dtype: of the last norm, which follows where norms come first.
    """

    layers: int
    block: Callable[[], Block]
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Makes the blocks."""
        self.blocks = [self.block() for _ in range(self.layers)]
        self.last = LayerNorm(dtype=self.dtype)

    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Maps x [B, T, D]."""
        for block in self.blocks:
            x = block(x, mask, train=train)
        return self.finish(x)

    def finish(self, x: jax.Array) -> jax.Array:
        """Normalises after the last block, where norms come first."""
        return self.last(x) if self.blocks[-1].norm == "pre" else x


class Decoder(Encoder):
    """Blocks in which no position sees those after it, and each may see a memory."""

    def __call__(  # type: ignore[override]
        self,
        x: jax.Array,
        memory: jax.Array | None = None,
        mask: jax.Array | None = None,
        *,
        train: bool,
    ) -> jax.Array:
        """Maps x [B, T, D], with a memory [B, S, D] of which mask [B, 1, S] may be seen, if any."""
        T = x.shape[1]
        causal = jnp.tril(jnp.ones((1, T, T), bool))
        for block, seen in zip(self.blocks, self.remember(memory, mask), strict=True):
            x = block(x, causal, seen, train=train)
        return self.finish(x)

    def remember(
        self, memory: jax.Array | None, mask: jax.Array | None
    ) -> tuple[Memory | None, ...]:
        """Each block's keys and values of a memory [B, S, D]; None of none."""
        if memory is None or mask is None:
            return (None,) * self.layers
        return tuple(block.remember(memory, mask) for block in self.blocks)

    def next(
        self, x: jax.Array, caches: Caches, position: jax.Array | int
    ) -> tuple[jax.Array, Caches]:
        """One more position, x [B, 1, D]."""
        own = []
        for block, cache, memory in zip(self.blocks, *caches, strict=True):
            x, grown = block.next(x, cache, position, memory)
            own.append(grown)
        return self.finish(x), caches._replace(own=tuple(own))


class Sizes(Protocol):
    """Sizes that a model of Transformer blocks has as attributes, see `transformer_lm`."""

    vocabulary: int
    layers: int
    heads: int
    features: int
    hidden: int
    length: int
    positions: str
    norm: str
    dropout: float
    dtype: DTypeLike


def token_table(model: Sizes) -> Tokens:
    """Embedding of tokens and positions for a model of these sizes."""
    return Tokens(
        model.vocabulary, model.features, model.length, model.positions, model.dropout, model.dtype
    )


def block_maker(model: Sizes, cross: bool = False) -> Callable[[], Block]:
    """Constructor of blocks of these sizes; `cross`: with attention to a memory."""
    return partial(
        Block,
        model.features,
        model.heads,
        model.hidden,
        model.norm,
        model.dropout,
        model.positions == "rotary",
        cross,
        dtype=model.dtype,
    )


def empty_caches(model: Sizes, examples: int) -> tuple[Pair, ...]:
    """Keys and values of zeros, of each block: [B, L, H, D / H] each."""
    shape = (examples, model.length, model.heads, model.features // model.heads)
    return ((jnp.zeros(shape, model.dtype),) * 2,) * model.layers
