"""Transformers (Vaswani et al., 2017), with normalisation before (Xiong et al., 2020) or after.

What decoding keeps between two tokens is a pytree whose leaves all have the examples first.

Shapes: B examples of T positions, S of a source, with D features; V tokens; L positions at most.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp

from jaxdl.models.transformer_lm import LanguageModel
from jaxdl.models.translator import Translator
from jaxdl.nn.embedding import Tokens
from jaxdl.nn.transformer import Block, Pair


def _tokens(model: LanguageModel | Translator) -> Tokens:
    return Tokens(
        model.vocabulary, model.features, model.length, model.positions, model.dropout, model.dtype
    )


def _block(model: LanguageModel | Translator, cross: bool = False) -> Callable[[], Block]:
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


def _empty(model: LanguageModel | Translator, examples: int) -> tuple[Pair, ...]:
    shape = (examples, model.length, model.heads, model.features // model.heads)
    return ((jnp.zeros(shape, model.dtype),) * 2,) * model.layers
