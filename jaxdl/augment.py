"""Image augmentation on the device, as pure functions of a key and images.

The same key gives the same pixels.

Shapes: B images of height H, width W and C channels, [B, H, W, C]; K classes.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdl.hyperparameters import is_static
from jaxdl.losses import one_hot


def normalize(x: jax.Array, mean: ArrayLike, std: ArrayLike) -> jax.Array:
    """Normalises each channel or column to mean 0 and standard deviation 1.

    Args:
      x: [B, ..., C].
      mean: mean [C] over the training split, on the scale of x.
      std: standard deviation [C] over the training split, on the scale of x.

    Returns:
      (x - mean) / std, float32 [B, ..., C].

    >>> x = jnp.array([[0, 10], [4, 30]])
    >>> normalize(x, mean=jnp.array([2.0, 20.0]), std=jnp.array([2.0, 10.0]))
    Array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    """
    shape = (1,) * (x.ndim - 1) + (-1,)
    return (x.astype(jnp.float32) - jnp.reshape(mean, shape)) / jnp.reshape(std, shape)


def random_crop(key: jax.Array, images: jax.Array, padding: int) -> jax.Array:
    """Random crop: pads by reflection and crops each image to its size at a random offset.

    Args:
      key: PRNG key.
      images: [B, H, W, C].
      padding: pixels of padding on each side; 0 returns the images unchanged.

    Returns:
      Images [B, H, W, C].
    """
    if padding == 0:
        return images
    B, *image_shape = images.shape
    edges = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, edges, mode="reflect")
    corner = jax.random.randint(key, (B, 2), 0, 2 * padding + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), image_shape)

    # One slice per image: devices that share the batch need no communication for it.
    return jax.vmap(crop)(padded, corner)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Random horizontal flip: mirrors each image left to right with probability 1/2."""
    flip = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def alternating_flip(
    key: jax.Array, images: jax.Array, index: jax.Array, epoch: int | jax.Array
) -> jax.Array:
    """Alternating flip: mirrors each image in every other epoch (Jordan, 2024, arXiv 2404.00498).

    Each example is flipped either in the even or in the odd epochs, with probability 1/2 each. Two
    consecutive epochs therefore show both sides of every image.

    Args:
      key: PRNG key, the same one in all epochs.
      images: [B, H, W, C].
      index: row of each image in its data set [B].
      epoch: epoch of this batch.

    Returns:
      Images [B, H, W, C].
    """
    flip_even = jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(key, i)))(index)  # [B]
    flip = flip_even ^ (epoch % 2 == 1)
    return jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)


def shift(images: jax.Array, down: int, right: int) -> jax.Array:
    """Translates all images and fills the border by reflection.

    Args:
      images: [B, H, W, C].
      down: pixels to move down; negative moves up. Its size is less than H.
      right: pixels to move right; negative moves left. Its size is less than W.

    Returns:
      Images [B, H, W, C].

    >>> shift(jnp.arange(4).reshape(1, 1, 4, 1), down=0, right=1)[0, 0, :, 0]
    Array([1, 0, 1, 2], dtype=int32)
    """
    _, H, W, _ = images.shape
    rows, columns = (max(down, 0), max(-down, 0)), (max(right, 0), max(-right, 0))
    padded = jnp.pad(images, ((0, 0), rows, columns, (0, 0)), mode="reflect")
    top, left = rows[1], columns[1]
    return padded[:, top : top + H, left : left + W]


def views(images: jax.Array, level: int, mirrored: bool) -> list[tuple[float, jax.Array]]:
    """Views for test-time augmentation, whose outputs are averaged (Jordan, 2024).

    Args:
      images: [B, H, W, C].
      level: 0: the images only; 1: also their mirror images; 2: also both of these moved by one
        pixel, up and left, and down and right.
      mirrored: True if an image flipped left to right keeps its label; if False, none is flipped.

    Returns:
      Pairs of a weight and views [B, H, W, C]. The weights sum to 1; the two moved views together
      have the weight of the unmoved one.

    >>> [weight for weight, _ in views(jnp.zeros((1, 4, 4, 1)), level=2, mirrored=False)]
    [0.5, 0.25, 0.25]
    """
    weighted = [(1.0, images)]
    if level == 2:
        weighted = [(0.5, images), *((0.25, shift(images, n, n)) for n in (-1, 1))]
    if level == 0 or not mirrored:
        return weighted
    return [(weight / 2, view) for weight, x in weighted for view in (x, x[:, :, ::-1])]


def cutout(key: jax.Array, images: jax.Array, size: int, fill: ArrayLike = 0.0) -> jax.Array:
    """Cutout: fills a random square in each image (DeVries & Taylor, 2017).

    Args:
      key: PRNG key.
      images: [B, H, W, C].
      size: side of the square in pixels; 0 returns the images unchanged. Its centre is uniform over
        the image, so the square may extend past the edges, as in the paper.
      fill: value of the pixels in the square, a scalar or one value per channel [C].

    Returns:
      Images [B, H, W, C].
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
    """Adds Gaussian noise to each pixel, rounded to whole levels.

    Args:
      key: PRNG key.
      images: [B, H, W, C], with levels of 0 to 255.
      deviation: standard deviation of the noise, in levels; a constant 0 returns the images
        unchanged.

    Returns:
      Images [B, H, W, C], float32, not clipped to the range.
    """
    if is_static(deviation, 0):
        return images
    normal = jax.random.normal(key, images.shape)
    return images.astype(jnp.float32) + jnp.round(deviation * normal)


def mixup(
    key: jax.Array, images: jax.Array, labels: jax.Array, num_classes: int, alpha: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mixup: mixes each image and its label with another one of the batch (Zhang et al., 2018).

    Args:
      key: PRNG key.
      images: [B, H, W, C].
      labels: class indices [B] or probabilities [B, K].
      num_classes: number of classes K.
      alpha: the mixing weight of a batch is drawn from Beta(alpha, alpha); 0 or less mixes nothing.

    Returns:
      Images [B, H, W, C], float32 unless `alpha` is a constant 0, and labels [B, K], float32.
    """
    targets = one_hot(labels, num_classes)
    if is_static(alpha, 0):
        return images, targets
    beta_key, order_key = jax.random.split(key)
    weight = jax.random.beta(beta_key, jnp.maximum(alpha, 1e-6), jnp.maximum(alpha, 1e-6))
    weight = jnp.where(alpha > 0, weight, 1.0)
    order = jax.random.permutation(order_key, images.shape[0])

    def mix(x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        # A single product: of a sum of two, compilers fuse one or the other product with the
        # addition, and the results round differently.
        return x + (1 - weight) * (x[order] - x)

    return mix(images), mix(targets)
