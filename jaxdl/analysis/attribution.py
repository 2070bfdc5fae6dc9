"""Attribution: how much each entry of an input contributes to a score of the model.

A score is a differentiable function of the inputs, x [B, ...] -> [B], such as the logit of a class;
the score of an example depends on its own input only. `layers.split_at` makes one of the output of
a layer, such as the embeddings of tokens. All functions may be compiled.

Shapes: B examples, S samples or steps, M masks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdl.task import Key

Score = Callable[[jax.Array], jax.Array]


def gradient(score: Score, x: jax.Array) -> jax.Array:
    """Gradient of each example's score (Simonyan et al., 2014), of the shape of x [B, ...]."""
    return jax.grad(lambda x: jnp.sum(score(x)))(x)


def gradient_x_input(score: Score, x: jax.Array, baseline: ArrayLike = 0.0) -> jax.Array:
    """Gradient times the difference to a baseline, [B, ...]; they sum to a linear score's change.

    Args:
      score: differentiable score.
      x: inputs [B, ...].
      baseline: input without content, which broadcasts to x.
    """
    return gradient(score, x) * (x - baseline)


class Integrated(NamedTuple):
    """Integrated gradients.

    Attributes:
      values: attribution of each entry, [B, ...].
      change: score of the input minus that of the baseline, [B], to which the values should sum.
      error: |sum of the values - change| / |change|, [B].
    """

    values: jax.Array
    change: jax.Array
    error: jax.Array


def integrated_gradients(
    score: Score, x: jax.Array, baseline: ArrayLike = 0.0, steps: int = 64
) -> Integrated:
    """Integrated gradients (Sundararajan et al., 2017), by the midpoint rule.

    Args:
      score: differentiable score.
      x: inputs [B, ...].
      baseline: input without content, which broadcasts to x.
      steps: number of gradients, S.
    """
    start = jnp.broadcast_to(jnp.asarray(baseline, x.dtype), x.shape)

    def add(total: jax.Array, step: jax.Array) -> tuple[jax.Array, None]:
        return total + gradient(score, start + (step + 0.5) / steps * (x - start)), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(x), jnp.arange(steps, dtype=x.dtype))
    values = total / steps * (x - start)
    change = score(x) - score(start)
    gap = jnp.abs(jnp.sum(values.reshape(len(x), -1), axis=1) - change)
    return Integrated(values, change, gap / jnp.maximum(jnp.abs(change), 1e-12))


class Smoothed(NamedTuple):
    """Gradients at noisy inputs.

    Attributes:
      mean: their mean, SmoothGrad, [B, ...].
      variance: their variance, VarGrad, [B, ...].
    """

    mean: jax.Array
    variance: jax.Array


def smooth_gradients(
    score: Score, x: jax.Array, key: Key, deviation: float | jax.Array, samples: int = 32
) -> Smoothed:
    """SmoothGrad (Smilkov et al., 2017) and VarGrad (Adebayo et al., 2018).

    Args:
      score: differentiable score.
      x: inputs [B, ...].
      key: PRNG key of the noise.
      deviation: standard deviation of the noise.
      samples: number of noisy inputs, S.
    """

    def sample(key: Key) -> jax.Array:
        return gradient(score, x + deviation * jax.random.normal(key, x.shape, x.dtype))

    def add(carry: Any, n: jax.Array) -> Any:
        mean, square = carry  # Welford's update, as a mean of squares loses digits
        found = sample(jax.random.fold_in(key, n))
        gap = found - mean
        mean = mean + gap / (n + 1)
        return (mean, square + gap * (found - mean)), None

    zeros = jnp.zeros_like(x), jnp.zeros_like(x)
    (mean, square), _ = jax.lax.scan(add, zeros, jnp.arange(samples))
    return Smoothed(mean, square / samples)


def grad_cam(activation: jax.Array, gradient: jax.Array) -> jax.Array:
    """Grad-CAM (Selvaraju et al., 2017) of a layer: its channels weighted by mean gradients.

    Args:
      activation: output of the layer, [B, ..., C] with at least one axis of positions.
      gradient: gradient of the score with respect to it.

    Returns:
      The map, not negative, [B, ...].
    """
    positions = tuple(range(1, activation.ndim - 1))
    weights = jnp.mean(gradient.astype(jnp.float32), axis=positions, keepdims=True)
    return jax.nn.relu(jnp.sum(weights * activation.astype(jnp.float32), axis=-1))


def window_masks(shape: tuple[int, int], window: int, stride: int) -> np.ndarray:
    """Masks of square windows that cover an image of (H, W) pixels, bool [M, H, W, 1]."""
    ends = [
        sorted({*range(0, max(side - window, 0), stride), max(side - window, 0)}) for side in shape
    ]
    masks = np.zeros((len(ends[0]), len(ends[1]), *shape, 1), bool)
    for i, top in enumerate(ends[0]):
        for j, left in enumerate(ends[1]):
            masks[i, j, top : top + window, left : left + window] = True
    return masks.reshape(-1, *shape, 1)


def group_masks(groups: np.ndarray) -> np.ndarray:
    """Masks of groups of entries, bool [M, ...].

    Args:
      groups: number of each entry's group from 0 to M - 1, int [...].
    """
    numbers = np.arange(int(groups.max()) + 1)
    return groups[None] == numbers.reshape(-1, *[1] * groups.ndim)


def ablation(score: Score, x: jax.Array, baseline: ArrayLike, masks: ArrayLike) -> jax.Array:
    """Feature ablation and, with windows, occlusion (Zeiler & Fergus, 2014).

    Args:
      score: score, which need not be differentiable.
      x: inputs [B, ...].
      baseline: what the entries of a mask are replaced by; it broadcasts to x.
      masks: bool [M, ...], each broadcasts to one input. Each entry is in some mask.

    Returns:
      For each entry the mean fall of the score over the masks that contain it, [B, ...].
    """
    before, masks, baseline = score(x), jnp.asarray(masks), jnp.asarray(baseline)

    def add(total: jax.Array, mask: jax.Array) -> tuple[jax.Array, None]:
        fall = before - score(jnp.where(mask[None], baseline, x).astype(x.dtype))
        return total + fall.reshape(-1, *[1] * (x.ndim - 1)) * mask[None], None

    total, _ = jax.lax.scan(add, jnp.zeros(x.shape, jnp.float32), masks)
    return total / jnp.sum(masks, axis=0, dtype=jnp.float32)[None]


def rollout(attentions: list[jax.Array]) -> jax.Array:
    """Attention rollout (Abnar & Zuidema, 2020): flow of attention through all layers.

    Args:
      attentions: attention weights of each layer from the first on, [B, H, T, T] each.

    Returns:
      The share of each input position in each output position, float32 [B, T, T].
    """
    identity = jnp.eye(attentions[0].shape[-1])[None]
    flow = identity
    for weights in attentions:
        mixed = jnp.mean(weights.astype(jnp.float32), axis=1) + identity  # with the residual branch
        flow = mixed / jnp.sum(mixed, axis=-1, keepdims=True) @ flow
    return flow
