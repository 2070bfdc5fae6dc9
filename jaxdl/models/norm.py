"""Normalisation layers by name, called inside a model's `__call__`: their parameters are its own.

Shapes: B examples, C channels or features on the last axis, `...` positions between.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
from jax.typing import DTypeLike

Norm = Callable[[jax.Array, bool, DTypeLike], jax.Array]  # (x, train, dtype) -> normalised x


def batch(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """Over batch and positions; running statistics (decay 0.9) when not training.

    Ioffe & Szegedy (2015).
    """
    return nn.BatchNorm(not train, momentum=0.9, dtype=dtype)(x)


def batch_of_all(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """As `batch`, over the examples of all devices where each has a program of its own."""
    axis = "data" if train else None  # the axis of `jaxdl.parallel`
    return nn.BatchNorm(not train, momentum=0.9, dtype=dtype, axis_name=axis)(x)


def layer(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """Over the channels, each position of each example apart (Ba et al., 2016)."""
    del train
    return nn.LayerNorm(dtype=dtype)(x)


def group(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """Over positions and C / 32 channels of each example (Wu & He, 2018).

    Where 32 does not divide C, into as many groups as divide both.
    """
    del train
    return nn.GroupNorm(math.gcd(x.shape[-1], 32), dtype=dtype)(x)


def none(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """Changes nothing."""
    del train, dtype
    return x


NORMS: dict[str, Norm] = {"batch": batch, "layer": layer, "group": group, "none": none}
