"""Loss along directions of the parameters, sharpness, and the noise of gradients.

Shapes: N points, B examples of a batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxdl.task import Key

Loss = Callable[[Any], jax.Array]


def filter_normalized(key: Key, params: Any) -> Any:
    """Random direction whose filters have the norms of those of the parameters (Li et al., 2018).

    The filters of a kernel [..., F] are along its last axis. Leaves with one axis, such as biases
    and scales of normalisations, stay where they are.

    Args:
      key: PRNG key.
      params: parameters, a pytree of floating arrays.
    """
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    drawn = [_like(k, leaf) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def _like(key: Key, leaf: jax.Array) -> jax.Array:
    if leaf.ndim < 2:
        return jnp.zeros_like(leaf)
    drawn = jax.random.normal(key, leaf.shape, leaf.dtype)
    axes = tuple(range(leaf.ndim - 1))
    norms = [jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True)) for x in (leaf, drawn)]
    return drawn * norms[0] / jnp.maximum(norms[1], 1e-12)


def loss_along(loss: Loss, params: Any, directions: Sequence[Any], points: ArrayLike) -> jax.Array:
    """Loss at points of the plane or line through the parameters.

    Args:
      loss: function of the parameters.
      params: parameters.
      directions: D directions, pytrees like the parameters.
      points: coordinates [N, D] along the directions.

    Returns:
      Losses [N].
    """

    def at(point: jax.Array) -> jax.Array:
        moved = params
        for n, direction in enumerate(directions):
            moved = jax.tree.map(lambda p, d, n=n: p + point[n] * d, moved, direction)
        return loss(moved)

    return jax.lax.map(at, jnp.asarray(points, jnp.float32))


def sharpness(loss: Loss, params: Any, radius: float) -> jax.Array:
    """Rise of the loss one step of length `radius` uphill (Foret et al., 2021), a scalar.

    Args:
      loss: function of the parameters.
      params: parameters.
      radius: length of the step.
    """
    value, gradient = jax.value_and_grad(loss)(params)
    scale = radius / jnp.maximum(optax.tree.norm(gradient), 1e-12)
    return loss(jax.tree.map(lambda p, g: p + scale * g, params, gradient)) - value


class GradientNoise(NamedTuple):
    """Noise of gradients (McCandlish et al., 2018).

    Attributes:
      square: estimate of the squared norm of the true gradient.
      variance: estimate of the trace of the covariance of the gradient of one example.
      scale: their quotient, the batch size at which noise and gradient are equally large; NaN if
        the estimate of the square is not positive.
    """

    square: float
    variance: float
    scale: float


def gradient_noise(gradients: np.ndarray, batch_size: int) -> GradientNoise:
    """Noise scale from the gradients of equally large batches.

    Args:
      gradients: gradients of the mean loss of M batches, [M, P], M > 1.
      batch_size: number of examples of a batch.
    """
    gradients = np.asarray(gradients, np.float64)
    count = len(gradients)
    mean = np.mean(gradients, axis=0)
    spread = np.sum(np.square(gradients - mean)) / (count - 1)  # of the mean of a batch
    square = float(np.sum(np.square(mean)) - spread / count)
    variance = float(batch_size * spread)
    return GradientNoise(square, variance, variance / square if square > 0 else float("nan"))
