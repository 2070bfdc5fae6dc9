"""Normalisation layers by name, called inside a model's `__call__`: their parameters are its own.

Variances are means of squared distances from the mean. E[x**2] - E[x]**2, Flax's default, is left
with rounding alone where a mean is a thousand deviations from 0.

Shapes: B examples, C channels or features on the last axis, `...` positions between.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

Norm = Callable[[jax.Array, bool, DTypeLike], jax.Array]  # (x, train, dtype) -> normalised x

WARM_UP = 20.0  # steps after which the share of a step in running statistics is a half

LayerNorm = functools.partial(nn.LayerNorm, use_fast_variance=False)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy, 2015): (x - mean) / sqrt(variance + epsilon).

    Training normalises by the batch's biased variance. The running statistics are averages of its
    mean and its unbiased variance, as the paper has them. Step t (from 0) enters them with a share
    of the greater of 1 - momentum and 20 / (20 + t): so nothing is left of what they began with.

    Attributes:
      momentum: decay of the running statistics.
      epsilon: added to the variance.
      use_scale: whether a learnt scale [C] follows; a learnt bias [C] always does.
      axis_name: axis of devices whose examples are one batch, in a program for each device.
      dtype: of the result; statistics are float32.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    use_scale: bool = True
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalises x [B, ..., C]; training updates the running statistics."""
        C = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, C, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, C, jnp.float32)
        # Steps so far; a float, for averages over devices have to keep its type.
        steps = self.variable("batch_stats", "steps", jnp.zeros, (), jnp.float32)
        x = x.astype(jnp.float32)
        if not train:
            y = (x - _over(mean.value, x)) * _over(lax.rsqrt(var.value + self.epsilon), x)
            return _affine(self, y, self.use_scale).astype(self.dtype)

        axes = tuple(range(x.ndim - 1))
        centred, own_mean, own_var = _standardize(x, axes, self.axis_name)
        if not self.is_initializing():
            count = x.size // C * (lax.psum(1, self.axis_name) if self.axis_name else 1)
            unbiased = own_var * (count / max(count - 1, 1))
            # Early parameters move fast, and an average of ten steps would lag far behind them.
            share = jnp.maximum(1 - self.momentum, WARM_UP / (WARM_UP + steps.value))
            steps.value += 1
            mean.value += share * (own_mean.reshape(C) - mean.value)
            var.value += share * (unbiased.reshape(C) - var.value)
        y = centred * lax.rsqrt(own_var + self.epsilon)
        return _affine(self, y, self.use_scale).astype(self.dtype)


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He, 2018): each example's, over positions and a group of channels.

    Attributes:
      groups: of consecutive channels; they divide C.
      epsilon: added to the variance.
      dtype: of the result; statistics are float32.
    """

    groups: int
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x [B, ..., C], then scales and shifts each channel by learnt numbers."""
        grouped = x.astype(jnp.float32).reshape(*x.shape[:-1], self.groups, -1)
        axes = (*range(1, x.ndim - 1), x.ndim)
        centred, _, var = _standardize(grouped, axes)
        y = (centred * lax.rsqrt(var + self.epsilon)).reshape(x.shape)
        return _affine(self, y).astype(self.dtype)


def batch(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """Over batch and positions; running statistics (decay 0.9) when not training.

    Ioffe & Szegedy (2015).
    """
    return BatchNorm(dtype=dtype)(x, train=train)


def batch_of_all(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """As `batch`, over the examples of all devices where each has a program of its own."""
    axis = "data" if train else None  # the axis of `jaxdl.distributed.sharding`
    return BatchNorm(dtype=dtype, axis_name=axis)(x, train=train)


def layer(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """Over the channels, each position of each example apart (Ba et al., 2016)."""
    del train
    return LayerNorm(dtype=dtype)(x)


def group(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """Over positions and C / 32 channels of each example (Wu & He, 2018).

    Where 32 does not divide C, into as many groups as divide both.
    """
    del train
    return GroupNorm(math.gcd(x.shape[-1], 32), dtype=dtype)(x)


def none(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """Changes nothing."""
    del train, dtype
    return x


NORMS: dict[str, Norm] = {"batch": batch, "layer": layer, "group": group, "none": none}


def _standardize(
    x: jax.Array, axes: tuple[int, ...], axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The distances of x from its mean over `axes`; that mean, and the biased variance."""

    def mean(a: jax.Array) -> jax.Array:
        own = jnp.mean(a, axis=axes, keepdims=True)
        return lax.pmean(own, axis_name) if axis_name else own

    # A float32 sum of many numbers far from 0 has errors of its own: what is left of the mean after
    # a first subtraction is near 0. Nothing depends on the first, so it needs no gradient.
    first = lax.stop_gradient(mean(x))
    near = x - first
    rest = mean(near)
    return near - rest, first + rest, mean(jnp.square(near)) - jnp.square(rest)


def _affine(module: nn.Module, y: jax.Array, use_scale: bool = True) -> jax.Array:
    """A learnt scale and bias of each channel of y [..., C]."""
    C = y.shape[-1]
    if use_scale:
        y = y * _over(module.param("scale", nn.initializers.ones, (C,)), y)
    return y + _over(module.param("bias", nn.initializers.zeros, (C,)), y)


def _over(channels: jax.Array, x: jax.Array) -> jax.Array:
    """Numbers [C] with the rank of x [..., C]."""
    return channels.reshape((1,) * (x.ndim - 1) + channels.shape)
