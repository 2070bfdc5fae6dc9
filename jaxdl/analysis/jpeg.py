"""Quantisation of JPEG: cosine transforms of blocks, rounded by the standard's tables.

The entropy coder loses nothing, so it is left out, and so is the subsampling of colour.

Shapes: B images of H by W pixels with C channels, 1 or 3.
"""

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 8
# Tables K.1 and K.2 of ITU-T T.81: steps of luminance and of chrominance at quality 50.
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
CHROMINANCE = np.array(
    [
        [17, 18, 24, 47, 99, 99, 99, 99],
        [18, 21, 26, 66, 99, 99, 99, 99],
        [24, 26, 56, 99, 99, 99, 99, 99],
        [47, 66, 99, 99, 99, 99, 99, 99],
        *[[99] * 8] * 4,
    ],
    np.float32,
)
# Y, Cb and Cr of red, green and blue (ITU-T T.871).
TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)


def cosines() -> np.ndarray:
    """Orthonormal matrix of the cosine transform of 8 values, [8, 8]."""
    n = np.arange(BLOCK)
    matrix = np.cos(np.pi * (2 * n[None] + 1) * n[:, None] / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def steps(quality: jax.Array, table: np.ndarray) -> jax.Array:
    """Quantisation steps [8, 8] of a quality from 1 to 100, as libjpeg scales them."""
    scale = jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    return jnp.clip(jnp.floor((table * scale + 50) / 100), 1, 255)


def jpeg(x: jax.Array, quality: jax.Array) -> jax.Array:
    """Images [B, H, W, C] of 0 to 1 after compression.

    Args:
      x: images.
      quality: 1 to 100.
    """
    is_colour = x.shape[-1] == 3
    levels = 255 * x
    planes = jnp.einsum("bhwc,dc->bhwd", levels, TO_YCC) if is_colour else levels
    planes -= jnp.asarray([128.0, 0, 0] if is_colour else [128.0])[None, None, None]
    tables = [LUMINANCE, CHROMINANCE, CHROMINANCE] if is_colour else [LUMINANCE]
    size = jnp.stack([steps(quality, table) for table in tables], axis=-1)
    found = _quantised(planes, size)
    found += jnp.asarray([128.0, 0, 0] if is_colour else [128.0])[None, None, None]
    if is_colour:
        found = jnp.einsum("bhwd,cd->bhwc", found, np.linalg.inv(TO_YCC).astype(np.float32))
    return found / 255


def _quantised(planes: jax.Array, size: jax.Array) -> jax.Array:
    """Rounds the cosine transforms of the blocks of planes [B, H, W, C] to steps [8, 8, C]."""
    B, H, W, C = planes.shape
    pad = [(0, -n % BLOCK) for n in (H, W)]
    padded = jnp.pad(planes, ((0, 0), *pad, (0, 0)), mode="edge")
    blocks = padded.reshape(B, -(-H // BLOCK), BLOCK, -(-W // BLOCK), BLOCK, C)
    D = cosines()
    transformed = jnp.einsum("ui,brisjc,vj->brusvc", D, blocks, D)
    rounded = jnp.round(transformed / size[None, None, :, None]) * size[None, None, :, None]
    back = jnp.einsum("ui,brusvc,vj->brisjc", D, rounded, D)
    return back.reshape(padded.shape)[:, :H, :W]
