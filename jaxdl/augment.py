"""Image augmentation on the device, pure in (key, images): the same key gives the same pixels.

Shapes: B images of height H, width W and C channels, [B, H, W, C]; K classes.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdl.losses import one_hot
from jaxdl.optim import is_static


def normalize(x: jax.Array, mean: ArrayLike, std: ArrayLike) -> jax.Array:
    """Shifts and scales x [B, ..., C] to mean 0 and deviation 1 in each channel or column [C].

    `mean` and `std` are those of the training split, on the scale of x. The result is float32.
    """
    shape = (1,) * (x.ndim - 1) + (-1,)
    return (x.astype(jnp.float32) - jnp.reshape(mean, shape)) / jnp.reshape(std, shape)


def random_crop(key: jax.Array, images: jax.Array, padding: int) -> jax.Array:
    """Crops each image at its own place from itself, reflected `padding` pixels past the edges."""
    if padding == 0:
        return images
    B, *image_shape = images.shape
    edges = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, edges, mode="reflect")
    corner = jax.random.randint(key, (B, 2), 0, 2 * padding + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), image_shape)

    # One slice an image, which devices that share the batch can make apart.
    return jax.vmap(crop)(padded, corner)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability one half."""
    flip = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def alternating_flip(
    key: jax.Array, images: jax.Array, index: jax.Array, epoch: int | jax.Array
) -> jax.Array:
    """Mirrors each image left to right in every other epoch (Jordan, 2024, arXiv 2404.00498).

    Whether in the even or the odd ones is drawn for each example, with probability one half; so two
    epochs that follow each other see both sides of every image.

    Args:
      key: PRNG key, the same one in all epochs.
      images: [B, H, W, C].
      index: [B], the place of each image in its data set.
      epoch: of this batch.
    """
    first = jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(key, i)))(index)  # [B]
    flip = first ^ (epoch % 2 == 1)
    return jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)


def shift(images: jax.Array, down: int, right: int) -> jax.Array:
    """Moves all images by so many pixels, fewer than H and W; what is bared is a reflection."""
    _, H, W, _ = images.shape
    rows, columns = (max(down, 0), max(-down, 0)), (max(right, 0), max(-right, 0))
    padded = jnp.pad(images, ((0, 0), rows, columns, (0, 0)), mode="reflect")
    top, left = rows[1], columns[1]
    return padded[:, top : top + H, left : left + W]


def views(images: jax.Array, level: int, mirrored: bool) -> list[tuple[float, jax.Array]]:
    """Views of an image whose outputs are averaged: test-time augmentation (Jordan, 2024).

    Args:
      images: [B, H, W, C].
      level: 0: the images alone; 1: and their mirror images; 2: and both moved by one pixel up and
        left, and down and right.
      mirrored: whether an image flipped left to right keeps its label; if not, none is flipped.

    Returns:
      Weights, whose sum is 1, and views [B, H, W, C]. Both that are moved weigh as much as the one
      that is not.
    """
    seen = [(1.0, images)]
    if level == 2:
        seen = [(0.5, images), *((0.25, shift(images, n, n)) for n in (-1, 1))]
    if level == 0 or not mirrored:
        return seen
    return [(weight / 2, side) for weight, x in seen for side in (x, x[:, :, ::-1])]


def cutout(key: jax.Array, images: jax.Array, size: int, fill: ArrayLike = 0.0) -> jax.Array:
    """Fills a square of side `size` pixels in each image (DeVries & Taylor, 2017).

    Its centre is uniform over the image, so that it may reach past the edges, as in the paper.
    `fill` is a number, or one for each channel [C].
    """
    if size == 0:
        return images
    B, H, W, _ = images.shape
    row_key, column_key = jax.random.split(key)
    top = jax.random.randint(row_key, (B, 1), 0, H) - size // 2
    left = jax.random.randint(column_key, (B, 1), 0, W) - size // 2
    rows = (jnp.arange(H)[None] >= top) & (jnp.arange(H)[None] < top + size)
    columns = (jnp.arange(W)[None] >= left) & (jnp.arange(W)[None] < left + size)
    square = (rows[:, :, None] & columns[:, None, :])[..., None]
    return jnp.where(square, jnp.reshape(fill, (1, 1, 1, -1)), images)


def noise(key: jax.Array, images: jax.Array, deviation: float | jax.Array) -> jax.Array:
    """Adds normal noise to each pixel of 0 to 255, rounded to whole levels; not clipped."""
    if is_static(deviation, 0):
        return images
    drawn = jax.random.normal(key, images.shape)
    return images.astype(jnp.float32) + jnp.round(deviation * drawn)


def mixup(
    key: jax.Array, images: jax.Array, labels: jax.Array, num_classes: int, alpha: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mixes each image and its label with another of the batch (Zhang et al., 2018).

    Args:
      key: PRNG key.
      images: [B, H, W, C].
      labels: [B] class indices or [B, K] probabilities.
      num_classes: K.
      alpha: one weight a batch is drawn from Beta(alpha, alpha); 0, or less, mixes nothing.

    Returns:
      Images [B, H, W, C], float32 where they are mixed, and labels [B, K], float32.
    """
    targets = one_hot(labels, num_classes)
    if is_static(alpha, 0):
        return images, targets
    beta_key, order_key = jax.random.split(key)
    drawn = jax.random.beta(beta_key, jnp.maximum(alpha, 1e-6), jnp.maximum(alpha, 1e-6))
    weight = jnp.where(alpha > 0, drawn, 1.0)
    order = jax.random.permutation(order_key, images.shape[0])

    def mix(x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        # One product for one sum: of two, compilers join either with it, and round differently.
        return x + (1 - weight) * (x[order] - x)

    return mix(images), mix(targets)
