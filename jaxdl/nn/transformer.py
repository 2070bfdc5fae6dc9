"""Transformer blocks (Vaswani et al., 2017), pre-norm (Xiong et al., 2020) or post-norm.

Decoding caches keys and values between two tokens, in a pytree whose leaves all have the examples
on their first axis.

Shapes: B examples of T positions, S source positions, D features; H heads; V tokens in the
vocabulary; L positions at most.
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
    """Keys and values of a source, for the cross-attention of one block.

    Attributes:
      keys: [B, S, H, D / H].
      values: [B, S, H, D / H].
      mask: bool [B, 1, S], False at padding.
    """

    keys: jax.Array
    values: jax.Array
    mask: jax.Array


class Caches(NamedTuple):
    """Caches of decoding, with one entry per block.

    Attributes:
      own: keys and values of the target's positions so far, [B, L, H, D / H] each.
      memories: keys and values of the source; None without a source.
    """

    own: tuple[Pair, ...]
    memories: tuple[Memory | None, ...]


class Block(nn.Module):
    """Transformer block: self-attention, cross-attention if `cross`, and a feed-forward network.

    Attributes:
      features: D.
      heads: H, must divide `features`.
      hidden: hidden units of the feed-forward network.
      norm: `pre` for x + f(norm(x)), `post` for norm(x + f(x)) as in the paper.
      dropout: dropout rate of each branch and of the attention weights.
      rotary: whether self-attention uses rotary position embeddings.
      cross: whether the block also attends to a memory.
      activation: activation of the feed-forward network.
      dtype: dtype of the computation.
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
        """Creates the layers.

        Raises:
          UserError: `norm` is not one of `NORMS`.
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
        """Applies the block.

        Args:
          x: [B, T, D].
          mask: bool [B or 1, T or 1, T], True where a position may see another.
          memory: keys and values of a source, of `remember`; None: no cross-attention.
          train: whether to apply dropout.

        Returns:
          [B, T, D].
        """

        def self_attention(x: jax.Array) -> jax.Array:
            return self.attention(x, x, mask, train=train)

        x = self._branch(0, x, self_attention, train)
        return self._after_self_attention(x, memory, train)

    def next(
        self, x: jax.Array, cache: Pair, position: jax.Array | int, memory: Memory | None = None
    ) -> tuple[jax.Array, Pair]:
        """Decodes one more position, which sees itself and the positions before it.

        Args:
          x: [B, 1, D].
          cache: keys and values of the positions so far, [B, L, H, D / H] each.
          position: position of `x`, below L.
          memory: keys and values of a source, of `remember`; None: no cross-attention.

        Returns:
          ([B, 1, D], the cache with this position).
        """
        positions = jnp.asarray(position)[None]
        mask = (jnp.arange(cache[0].shape[1]) <= position)[None, None]
        caches: list[Pair] = []

        def self_attention(x: jax.Array) -> jax.Array:
            new = self.attention.project(x, positions)
            keys, values = (
                jax.lax.dynamic_update_slice_in_dim(old, a.astype(old.dtype), position, axis=1)
                for old, a in zip(cache, new, strict=True)
            )
            caches.append((keys, values))
            return self.attention.attend(x, keys, values, mask, train=False, positions=positions)

        x = self._branch(0, x, self_attention, False)
        return self._after_self_attention(x, memory, False), caches[0]

    def remember(self, memory: jax.Array, mask: jax.Array) -> Memory | None:
        """Keys and values of a memory for this block; None if the block has no cross-attention.

        Args:
          memory: [B, S, D].
          mask: bool [B, 1, S], False at padding.
        """
        return Memory(*self.cross_attention.project(memory), mask) if self.cross else None

    def _after_self_attention(self, x: jax.Array, memory: Memory | None, train: bool) -> jax.Array:
        """Cross-attention, if there is a memory, and the feed-forward network."""
        if memory is not None:

            def cross_attention(x: jax.Array) -> jax.Array:
                return self.cross_attention.attend(x, *memory, train=train)

            x = self._branch(2, x, cross_attention, train)
        return self._branch(1, x, lambda x: self.narrow(self.activation(self.wide(x))), train)

    def _branch(
        self, n: int, x: jax.Array, f: Callable[[jax.Array], jax.Array], train: bool
    ) -> jax.Array:
        """Residual branch f with norm n: 0 self-attention, 1 feed-forward, 2 cross-attention."""
        pre = self.norm == "pre"
        y = self.drop(f(self.norms[n](x) if pre else x), deterministic=not train)
        return x + y if pre else self.norms[n](x + y)


class Encoder(nn.Module):
    """Transformer encoder: a stack of blocks.

    Attributes:
      layers: number of blocks.
      block: constructor of a block.
      dtype: dtype of the norm after the last block, which pre-norm blocks need.
    """

    layers: int
    block: Callable[[], Block]
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Creates the blocks."""
        self.blocks = [self.block() for _ in range(self.layers)]
        self.last = LayerNorm(dtype=self.dtype)

    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Encodes x [B, T, D] -> [B, T, D]; mask: bool [B or 1, T or 1, T], True where visible."""
        for block in self.blocks:
            x = block(x, mask, train=train)
        return self.finish(x)

    def finish(self, x: jax.Array) -> jax.Array:
        """Normalises the output of the last block, if the blocks are pre-norm."""
        return self.last(x) if self.blocks[-1].norm == "pre" else x


class Decoder(Encoder):
    """Transformer decoder: a stack of causal blocks, with cross-attention if the blocks have it."""

    def __call__(  # type: ignore[override]
        self,
        x: jax.Array,
        memory: jax.Array | None = None,
        mask: jax.Array | None = None,
        *,
        train: bool,
    ) -> jax.Array:
        """Decodes all positions at once; each sees itself and those before it.

        Args:
          x: [B, T, D].
          memory: source to attend to, [B, S, D]; None: no cross-attention.
          mask: bool [B, 1, S], False at the source's padding; None: no cross-attention.
          train: whether to apply dropout.

        Returns:
          [B, T, D].
        """
        T = x.shape[1]
        causal = jnp.tril(jnp.ones((1, T, T), bool))
        for block, block_memory in zip(self.blocks, self.remember(memory, mask), strict=True):
            x = block(x, causal, block_memory, train=train)
        return self.finish(x)

    def remember(
        self, memory: jax.Array | None, mask: jax.Array | None
    ) -> tuple[Memory | None, ...]:
        """Keys and values of a memory [B, S, D] for each block; None without a memory."""
        if memory is None or mask is None:
            return (None,) * self.layers
        return tuple(block.remember(memory, mask) for block in self.blocks)

    def next(
        self, x: jax.Array, caches: Caches, position: jax.Array | int
    ) -> tuple[jax.Array, Caches]:
        """Decodes one more position x [B, 1, D] -> ([B, 1, D], caches); see `Block.next`."""
        own = []
        for block, cache, memory in zip(self.blocks, *caches, strict=True):
            x, cache = block.next(x, cache, position, memory)
            own.append(cache)
        return self.finish(x), caches._replace(own=tuple(own))


class Sizes(Protocol):
    """Attributes of a model of Transformer blocks; `models.transformer_lm` describes them."""

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


def make_embedding(model: Sizes) -> Tokens:
    """Embedding of tokens and positions for a model."""
    return Tokens(
        model.vocabulary, model.features, model.length, model.positions, model.dropout, model.dtype
    )


def make_block(model: Sizes, cross: bool = False) -> Callable[[], Block]:
    """Constructor of the blocks of a model; `cross`: whether they have cross-attention."""
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
    """Keys and values of zeros for each block of a model, [B, L, H, D / H] each."""
    shape = (examples, model.length, model.heads, model.features // model.heads)
    return ((jnp.zeros(shape, model.dtype),) * 2,) * model.layers
