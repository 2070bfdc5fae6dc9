"""Warps, blurs and smooth noise of images, with sizes that may be traced.

Shapes: B images of H by W pixels with C channels.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.task import Key

REACH = 3  # pixels on each side that a blur sees


def grid(x: jax.Array) -> jax.Array:
    """Row and column of each pixel of images [B, H, W, C], float32 [1, H, W, 2]."""
    rows, columns = (np.arange(n, dtype=np.float32) for n in x.shape[1:3])
    return jnp.asarray(np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1))[None]


def warp(x: jax.Array, places: jax.Array, fill: bool = False) -> jax.Array:
    """Bilinear samples of images.

    Args:
      x: images [B, H, W, C].
      places: row and column of each sample, [B or 1, H, W, 2].
      fill: outside of an image is 0, instead of its nearest pixel.
    """
    B, H, W, _ = x.shape
    places = jnp.broadcast_to(places, (B, *places.shape[1:]))
    low = jnp.floor(places)
    part = places - low
    total = jnp.zeros_like(x)
    for down in (0, 1):
        for right in (0, 1):
            rows, columns = (
                low[..., n].astype(jnp.int32) + step for n, step in ((0, down), (1, right))
            )
            weight = jnp.abs(1 - down - part[..., 0]) * jnp.abs(1 - right - part[..., 1])
            if fill:
                weight *= (rows >= 0) & (rows < H) & (columns >= 0) & (columns < W)
            picked = jax.vmap(lambda image, r, c: image[r, c])(
                x, jnp.clip(rows, 0, H - 1), jnp.clip(columns, 0, W - 1)
            )
            total += weight[..., None] * picked
    return total


def disk(radius: jax.Array) -> jax.Array:
    """Weights of a disk with smooth edges, which sum to 1: [2 REACH + 1, 2 REACH + 1]."""
    axis = np.arange(-REACH, REACH + 1)
    distance = np.hypot(axis[:, None], axis[None]).astype(np.float32)
    weights = jnp.clip(radius + 0.5 - distance, 0, 1)
    return weights / jnp.sum(weights)


def blur(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Weighted mean over the neighbours of each pixel; outside is the nearest pixel.

    Args:
      x: images [B, H, W, C].
      weights: weights [S, S] of the neighbours, S odd.
    """
    S, (H, W) = len(weights), x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (S // 2, S // 2), (S // 2, S // 2), (0, 0)), mode="edge")
    return sum(
        (weights[i, j] * padded[:, i : i + H, j : j + W] for i in range(S) for j in range(S)),
        jnp.zeros_like(x),
    )


def smooth_noise(key: Key, shape: tuple[int, ...], cell: int) -> jax.Array:
    """Normal noise on a grid of cells, interpolated to [B, H, W] with about unit variance.

    Args:
      key: PRNG key.
      shape: (B, H, W).
      cell: side of a cell in pixels.
    """
    B, H, W = shape
    coarse = jax.random.normal(key, (B, -(-H // cell) + 1, -(-W // cell) + 1))
    return 1.5 * jax.image.resize(coarse, shape, "cubic")


def fractal(key: Key, shape: tuple[int, ...]) -> jax.Array:
    """Fractal noise [B, H, W] from 0 to 1: octaves of half the size with half the weight."""
    cells = [16, 8, 4, 2]
    total = sum(
        (cell * smooth_noise(jax.random.fold_in(key, cell), shape, cell) / 16 for cell in cells),
        jnp.zeros(shape),
    )
    low, high = (f(total, axis=(1, 2), keepdims=True) for f in (jnp.min, jnp.max))
    return (total - low) / jnp.maximum(high - low, 1e-6)
