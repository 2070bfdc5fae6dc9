"""Normalisation layers by name, called inside a model's `__call__`, which owns their parameters.

Variances are means of squared distances from the mean. Flax's default, E[x**2] - E[x]**2, is pure
rounding error where the mean is a thousand standard deviations from 0.

Shapes: B examples, C channels or features on the last axis, `...` positions between.
"""

import functools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

Norm = Callable[[jax.Array, bool, DTypeLike], jax.Array]  # (x, train, dtype) -> normalised x

WARM_UP = 20.0  # steps until a batch's weight in the running statistics has fallen to a half

LayerNorm = functools.partial(nn.LayerNorm, use_fast_variance=False)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy, 2015): (x - mean) / sqrt(variance + epsilon).

    Training normalises by the batch's mean and biased variance. The running statistics average the
    batches' means and unbiased variances, as in the paper. Step t (from 0) enters the average with
    weight max(1 - momentum, 20 / (20 + t)). The first step has weight 1, so the initial statistics
    are forgotten.

    Attributes:
      momentum: decay of the running statistics.
      epsilon: added to the variance.
      use_scale: whether to learn a scale [C]; a bias [C] is always learnt.
      axis_name: mapped axis of devices that share one batch (as in `pmap`); None: each normalises
        by the examples of its own program.
      dtype: dtype of the result; statistics are float32.
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
        # Number of steps so far; a float, because averages over devices must keep its dtype.
        steps = self.variable("batch_stats", "steps", jnp.zeros, (), jnp.float32)
        x = x.astype(jnp.float32)
        scale, bias = (_expand(a, x) for a in _scale_and_bias(self, C, self.use_scale))
        if not train:
            y = (x - _expand(mean.value, x)) * _expand(lax.rsqrt(var.value + self.epsilon), x)
            return (y * scale + bias).astype(self.dtype)

        over = Over(tuple(range(x.ndim - 1)), self.epsilon, self.axis_name)
        y, batch_mean, batch_var = normalize(x, scale, bias, over)
        if not self.is_initializing():
            count = x.size // C * (lax.psum(1, self.axis_name) if self.axis_name else 1)
            unbiased = batch_var * (count / max(count - 1, 1))
            # Parameters change fast in early steps, and an average over ten steps would lag.
            weight = jnp.maximum(1 - self.momentum, WARM_UP / (WARM_UP + steps.value))
            steps.value += 1
            mean.value += weight * (batch_mean.reshape(C) - mean.value)
            var.value += weight * (unbiased.reshape(C) - var.value)
        return y.astype(self.dtype)


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He, 2018): per example, over positions and a group of channels.

    Attributes:
      groups: number of groups of consecutive channels, must divide C.
      epsilon: added to the variance.
      dtype: dtype of the result; statistics are float32.
    """

    groups: int
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x [B, ..., C], then applies a learnt scale and bias to each channel."""
        sizes = self.groups, x.shape[-1] // self.groups
        grouped = x.astype(jnp.float32).reshape(*x.shape[:-1], *sizes)
        scale, bias = (
            _expand(a.reshape(grouped.shape[-2:]), grouped)
            for a in _scale_and_bias(self, x.shape[-1])
        )
        over = Over((*range(1, x.ndim - 1), x.ndim), self.epsilon)
        y, _, _ = normalize(grouped, scale, bias, over)
        return y.reshape(x.shape).astype(self.dtype)


def frozen_statistics(is_frozen: Callable[[str], bool]) -> AbstractContextManager[None]:
    """Context in which layers with frozen running statistics normalise by them in training too.

    Only this module's `BatchNorm` obeys.

    Args:
      is_frozen: path of a leaf, such as `batch_stats/BatchNorm_0/mean`, -> True if it is frozen.
    """

    def call(function: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        is_trained = not isinstance(module, BatchNorm) or module.is_initializing()
        if not is_trained and is_frozen("/".join(("batch_stats", *module.path, "mean"))):
            kwargs = {**kwargs, "train": False}
        return function(*args, **kwargs)

    return nn.intercept_methods(call)


def batch(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """Batch normalisation (Ioffe & Szegedy, 2015), over examples and positions.

    Uses running statistics (decay 0.9) when not training.
    """
    return BatchNorm(dtype=dtype)(x, train=train)


def cross_device_batch(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """Batch normalisation over the examples of all devices, for `pmap`-style programs.

    Like `batch`, with statistics averaged over the axis of devices.
    """
    axis = "data" if train else None  # the axis of `jaxdl.distributed.sharding`
    return BatchNorm(dtype=dtype, axis_name=axis)(x, train=train)


def layer(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """Layer normalisation (Ba et al., 2016): over the channels of each position."""
    del train
    return LayerNorm(dtype=dtype)(x)


def group(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """Group normalisation (Wu & He, 2018) with 32 groups.

    If 32 does not divide C, there are gcd(C, 32) groups.
    """
    del train
    return GroupNorm(math.gcd(x.shape[-1], 32), dtype=dtype)(x)


def none(x: jax.Array, train: bool, dtype: DTypeLike) -> jax.Array:
    """No normalisation: returns `x`."""
    del train, dtype
    return x


NORMS: dict[str, Norm] = {"batch": batch, "layer": layer, "group": group, "none": none}


class Over(NamedTuple):
    """Axes that `normalize` takes statistics over.

    Attributes:
      axes: axes of the array.
      epsilon: added to the variance.
      axis_name: mapped axis of devices that share a batch, or None.
    """

    axes: tuple[int, ...]
    epsilon: float
    axis_name: str | None = None

    def mean(self, x: jax.Array) -> jax.Array:
        """Means over the axes, which keep size 1."""
        local = jnp.mean(x, axis=self.axes, keepdims=True)
        return lax.pmean(local, self.axis_name) if self.axis_name else local


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, over: Over
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, with a short derivative.

    Args:
      x: float32 [B, ..., C], or with channels in groups [B, ..., G, C / G].
      scale: as many axes, of size 1 where all entries share a scale, such as [1, ..., C].
      bias: likewise.
      over: axes of the statistics, and epsilon.

    Returns:
      The normalised array, of the shape of `x`, and its means and biased variances, which have size
      1 along the axes of the statistics.
    """
    standard, mean, var, _ = _standardize(x, over)
    return standard * scale + bias, mean, var


@normalize.defjvp
def _normalize_jvp(over: Over, primals: Any, tangents: Any) -> tuple[Any, Any]:
    """A gradient by this rule has two sums over the axes, which also give those of scale and bias.

    JAX's own takes five, in as many passes over the array.
    """
    (x, scale, bias), (dx, d_scale, d_bias) = primals, tangents
    standard, mean, var, inverse = _standardize(x, over)
    along, d_mean, slope = over.mean(standard * dx), over.mean(dx), inverse * scale
    dy = slope * dx + (d_bias - slope * d_mean) + standard * (d_scale - slope * along)
    return (standard * scale + bias, mean, var), (dy, d_mean, 2 * along / inverse)


def _standardize(x: jax.Array, over: Over) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns standardised x, mean, biased variance and 1 / sqrt(variance + epsilon)."""
    # A float32 sum of many numbers far from 0 has rounding errors of its own. So the mean is
    # computed twice: of x, and of x minus the first mean, which is near 0. The results do not
    # depend on the first mean, apart from rounding, so it needs no gradient.
    rough_mean = lax.stop_gradient(over.mean(x))
    near = x - rough_mean
    correction = over.mean(near)
    # Of equal values far from 0 the difference is rounding, which may be negative.
    var = jnp.maximum(over.mean(jnp.square(near)) - jnp.square(correction), 0)
    inverse = lax.rsqrt(var + over.epsilon)
    return (near - correction) * inverse, rough_mean + correction, var, inverse


def _scale_and_bias(
    module: nn.Module, channels: int, use_scale: bool = True
) -> tuple[jax.Array, jax.Array]:
    """Creates a learnt scale and bias [C] in `module`; a scale of ones if it has none."""
    shape = (channels,)
    scale = module.param("scale", nn.initializers.ones, shape) if use_scale else jnp.ones(shape)
    return scale, module.param("bias", nn.initializers.zeros, shape)


def _expand(channels: jax.Array, x: jax.Array) -> jax.Array:
    """Expands [C], or [G, C / G], to the rank of x [..., C]."""
    return channels.reshape((1,) * (x.ndim - channels.ndim) + channels.shape)
