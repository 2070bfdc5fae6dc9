"""Adversarial attacks on classifiers of images: FGSM, PGD and a square attack without gradients.

An attack maximises a loss of the images, x [B, H, W, C] -> [B], within a distance epsilon of the
images and between two limits, in their own units. The loss of an example depends on its own image
only.

Shapes: B images of H by W pixels with C channels, K classes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdl.errors import UserError
from jaxdl.task import Key

Loss = Callable[[jax.Array], jax.Array]
LEVELS = (0.0, 255.0)  # limits of pixels
NORMS = ("inf", "2")
# Fractions of the steps of a square attack after which the area of its squares is halved, as in its
# authors' code.
HALVED = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
FIRST_AREA = 0.8  # of the first squares, as a share of the image


def margin(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Largest logit of another class minus that of the true class, [B]; positive if it is wrong.

    Args:
      logits: logits of exclusive classes, [B, K] with K > 1.
      labels: true classes, int [B].
    """
    is_true = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    others = jnp.max(jnp.where(is_true, -jnp.inf, logits), axis=1)
    return others - jnp.sum(jnp.where(is_true, logits, 0), axis=1)


def fgsm(
    loss: Loss, x: jax.Array, epsilon: float | jax.Array, limits: tuple[float, float] = LEVELS
) -> jax.Array:
    """Fast gradient sign method (Goodfellow et al., 2015): one step of epsilon in each pixel.

    Args:
      loss: loss to maximise.
      x: images [B, H, W, C], floating.
      epsilon: largest change of a pixel.
      limits: least and largest value of a pixel.
    """
    step = jnp.sign(jax.grad(lambda x: jnp.sum(loss(x)))(x))
    return jnp.clip(x + epsilon * step, *limits)


def ascend(
    loss: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    start: jax.Array,
    epsilon: float | jax.Array,
    length: float | jax.Array,
    *,
    norm: str = "inf",
    steps: int = 1,
    limits: tuple[float, float] = LEVELS,
) -> jax.Array:
    """Projected gradient ascent: steps of one length, each followed by a projection.

    Args:
      loss: loss to maximise, of each image [B] or summed over them; only its gradient is used.
      x: images [B, H, W, C], floating.
      start: images [B, H, W, C] to start at.
      epsilon: radius of the ball around each image.
      length: length of a step, in the units of `epsilon`.
      norm: `inf` for the largest change of a pixel, `2` for the Euclidean norm of all changes.
      steps: number of steps.
      limits: least and largest value of a pixel.

    Returns:
      The images after the last step, [B, H, W, C].
    """
    slope = jax.grad(lambda x: jnp.sum(loss(x)))

    def step(_: jax.Array, here: jax.Array) -> jax.Array:
        return _move(x, here, slope(here), epsilon, length, norm, limits)

    return jax.lax.fori_loop(0, steps, step, start)


def random_start(
    key: Key,
    x: jax.Array,
    epsilon: float | jax.Array,
    norm: str = "inf",
    limits: tuple[float, float] = LEVELS,
) -> jax.Array:
    """Images drawn uniformly from the balls around x [B, H, W, C], and then clipped to `limits`.

    Args:
      key: PRNG key.
      x: images [B, H, W, C], floating.
      epsilon: radius of the balls.
      norm: norm of the balls, `inf` or `2`.
      limits: least and largest value of a pixel.
    """
    if norm == "inf":
        noise = jax.random.uniform(key, x.shape, x.dtype, -1, 1)
    else:  # a normal direction and a root of a uniform radius
        direction_key, radius_key = jax.random.split(key)
        noise = jax.random.normal(direction_key, x.shape, x.dtype)
        radius = jax.random.uniform(radius_key, (len(x), 1, 1, 1), x.dtype)
        noise = noise / _length(noise) * radius ** (1 / x[0].size)
    return jnp.clip(x + epsilon * noise, *limits)


def pgd(
    loss: Loss,
    x: jax.Array,
    epsilon: float | jax.Array,
    key: Key,
    *,
    norm: str = "inf",
    steps: int = 20,
    restarts: int = 1,
    length: float | jax.Array | None = None,
    limits: tuple[float, float] = LEVELS,
) -> jax.Array:
    """Projected gradient descent (Madry et al., 2018) from random starts.

    Args:
      loss: loss to maximise.
      x: images [B, H, W, C], floating.
      epsilon: radius of the ball around each image.
      key: PRNG key of the starts.
      norm: `inf` for the largest change of a pixel, `2` for the Euclidean norm of all changes.
      steps: steps after each start.
      restarts: number of starts.
      length: length of a step; None: `step_length`.
      limits: least and largest value of a pixel.

    Returns:
      The images with the largest loss of all steps and starts, [B, H, W, C].

    Raises:
      UserError: the norm is unknown.
    """
    if norm not in NORMS:
        raise UserError(f"norm={norm!r}: choose one of {', '.join(NORMS)}")
    length = step_length(epsilon, steps) if length is None else length
    slope = jax.value_and_grad(lambda x: (jnp.sum(values := loss(x)), values), has_aux=True)

    def step(_: jax.Array, carry: Any) -> Any:
        here, best = carry
        (_, values), gradient = slope(here)
        moved = _move(x, here, gradient, epsilon, length, norm, limits)
        return moved, keep_larger(best, (here, values))

    def restart(best: Any, key: Key) -> tuple[Any, None]:
        start = random_start(key, x, epsilon, norm, limits)
        end, best = jax.lax.fori_loop(0, steps, step, (start, best))
        return keep_larger(best, (end, loss(end))), None

    return jax.lax.scan(restart, (x, loss(x)), jax.random.split(key, restarts))[0][0]


def step_length(epsilon: float | jax.Array, steps: int) -> float | jax.Array:
    """Length 2.5 epsilon / steps of a step of PGD, so that the edge is reached from anywhere."""
    return 2.5 * epsilon / steps


def _move(
    x: jax.Array,
    here: jax.Array,
    gradient: jax.Array,
    epsilon: float | jax.Array,
    length: float | jax.Array,
    norm: str,
    limits: tuple[float, float],
) -> jax.Array:
    """One step from `here` in the direction of the gradient, within the ball and the limits."""
    ascent = jnp.sign(gradient) if norm == "inf" else gradient / _length(gradient)
    return jnp.clip(x + project(here + length * ascent - x, epsilon, norm), *limits)


def project(change: jax.Array, epsilon: float | jax.Array, norm: str) -> jax.Array:
    """Nearest change [B, H, W, C] whose norm, `inf` or `2`, is at most epsilon."""
    if norm == "inf":
        return jnp.clip(change, -epsilon, epsilon)
    return change * jnp.minimum(1, epsilon / _length(change))


def _length(x: jax.Array) -> jax.Array:
    square = jnp.sum(jnp.square(x), axis=(1, 2, 3), keepdims=True)
    return jnp.sqrt(jnp.maximum(square, 1e-24))


def keep_larger(best: Any, other: Any) -> Any:
    """Images [B, H, W, C] and losses [B] of the pair with the larger loss, for each example."""
    is_better = other[1] > best[1]
    images = jnp.where(is_better[:, None, None, None], other[0], best[0])
    return images, jnp.where(is_better, other[1], best[1])


def square_side(step: ArrayLike, steps: int, height: int, width: int) -> jax.Array:
    """Side in pixels of the squares of a step of `square`, an int scalar.

    Args:
      step: number of the step, from 0 on; may be traced.
      steps: number of all steps.
      height: rows of the images.
      width: columns of the images.
    """
    halvings = jnp.sum(step > jnp.asarray(HALVED) * steps)
    side = jnp.round(jnp.sqrt(FIRST_AREA * 0.5**halvings * height * width))
    return jnp.clip(side, 1, min(height, width)).astype(jnp.int32)


def square(
    loss: Loss,
    x: jax.Array,
    epsilon: float | jax.Array,
    key: Key,
    *,
    steps: int = 200,
    limits: tuple[float, float] = LEVELS,
) -> jax.Array:
    """Square attack in the largest norm (Andriushchenko et al., 2020), which needs no gradient.

    Each step changes a random square to one of the two edges of the ball in each channel, and keeps
    it where the loss grows.

    Args:
      loss: loss to maximise, such as `margin`.
      x: images [B, H, W, C], floating.
      epsilon: largest change of a pixel.
      key: PRNG key.
      steps: number of steps, each with one call of the loss.
      limits: least and largest value of a pixel.

    Returns:
      The images with the largest loss, [B, H, W, C].
    """
    B, H, W, C = x.shape

    def step(n: jax.Array, best: Any) -> Any:
        place_key, sign_key = jax.random.split(jax.random.fold_in(key, n))
        h = square_side(n, steps, H, W)
        corner = jax.random.uniform(place_key, (B, 2)) * (jnp.asarray([[H, W]]) - h + 1)
        top, left = (corner[:, n].astype(jnp.int32)[:, None] for n in range(2))
        rows, columns = (jnp.arange(n)[None] for n in (H, W))
        in_rows, in_columns = (
            (rows >= top) & (rows < top + h),
            (columns >= left) & (columns < left + h),
        )
        inside = (in_rows[:, :, None] & in_columns[:, None, :])[..., None]
        sign = jax.random.rademacher(sign_key, (B, 1, 1, C), x.dtype)
        proposal = jnp.clip(jnp.where(inside, x + epsilon * sign, best[0]), *limits)
        return keep_larger(best, (proposal, loss(proposal)))

    stripes = jax.random.rademacher(jax.random.fold_in(key, steps), (B, 1, W, C), x.dtype)
    start = jnp.clip(x + epsilon * stripes, *limits)
    best = keep_larger((x, loss(x)), (start, loss(start)))
    return jax.lax.fori_loop(0, steps, step, best)[0]
