"""Convolution and pooling on blocks of pixels: much faster on a CPU where channels are few.

A block of s by s pixels with C channels becomes one pixel with s * s * C channels, and the kernel
becomes one that computes all outputs of a block from the blocks around them. This multiplies some
zeros. But there are fewer patches to copy, the matrix products are wider, and the values that are
pooled together lie side by side.

    image, 4x4 pixels, C channels         2x2 blocks (s = 2), 4 * C channels

         a b | c d
         e f | g h                              abef | cdgh
         ----+----                              -----+-----
         i j | k l                              ijmn | klop
         m n | o p

Shapes: B images of H by W; k by l kernels with I channels in, O channels out; s the side of a
block, in pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Axis(NamedTuple):
    """Block geometry of one axis (rows or columns) of a convolution with 2x2 pooling after it.

    Attributes:
      pooled: size of the pooled output; an odd last output is dropped before pooling.
      results: blocks of outputs; the last one may be partly empty.
      blocks: blocks of input pixels that these depend on.
      seen: input blocks that one block of outputs depends on.
      padding: pixels of zeros before and after the image; negative numbers crop.
    """

    pooled: int
    results: int
    blocks: int
    seen: int
    padding: tuple[int, int]


def axis(pixels: int, kernel: int, padding: int, size: int) -> Axis:
    """Block geometry along an axis.

    Args:
      pixels: size of the image.
      kernel: size of the kernel.
      padding: zeros on both sides of the image.
      size: s, side of a block, even.

    >>> axis(pixels=28, kernel=5, padding=2, size=4)
    Axis(pooled=14, results=7, blocks=8, seen=2, padding=(2, 2))
    """
    pooled = (pixels + 2 * padding - kernel + 1) // 2
    results = -(-pooled // (size // 2))
    seen = 1 + -(-(kernel - 1) // size)
    blocks = results + seen - 1
    return Axis(pooled, results, blocks, seen, (padding, blocks * size - padding - pixels))


def split(x: jax.Array, rows: Axis, columns: Axis, size: int) -> jax.Array:
    """Splits images into blocks: [B, H, W, I] -> [B, rows.blocks, columns.blocks, s * s * I]."""
    pads = [(0, 0, 0), (*rows.padding, 0), (*columns.padding, 0), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)
    x = x.reshape(x.shape[0], rows.blocks, size, columns.blocks, size, -1).swapaxes(2, 3)
    return x.reshape(x.shape[0], rows.blocks, columns.blocks, -1)


def join(x: jax.Array, rows: Axis, columns: Axis, side: int) -> jax.Array:
    """Joins blocks of `side` by `side` pooled outputs to images [B, pooled, pooled, O]."""
    x = x.reshape(x.shape[0], rows.results, columns.results, side, side, -1).swapaxes(2, 3)
    x = x.reshape(x.shape[0], rows.results * side, columns.results * side, -1)
    return x[:, : rows.pooled, : columns.pooled]


def shifted_kernels(kernel: jax.Array, size: int) -> jax.Array:
    """Copies of a kernel, shifted to each pixel of a block.

    [k, l, I, O] -> [k + s - 1, l + s - 1, I, s * s * O]. The output channels are ordered by the
    pixel's place within its 2x2 pooling window, then by the window. Pooling is then over the
    slowest of these axes.
    """
    places = [range(offset, size, 2) for offset in range(2)]
    pads = [
        ((i, size - 1 - i), (j, size - 1 - j), (0, 0), (0, 0))
        for rows in places
        for columns in places
        for i in rows
        for j in columns
    ]
    return jnp.concatenate([jnp.pad(kernel, pad) for pad in pads], axis=-1)


def kernel_over_blocks(kernel: jax.Array, rows: Axis, columns: Axis, size: int) -> jax.Array:
    """Kernel over blocks: [k, l, I, O] -> [rows.seen, columns.seen, s * s * I, s * s * O]."""
    height, width, inputs, outputs = kernel.shape
    lacking = [rows.seen * size - (height + size - 1), columns.seen * size - (width + size - 1)]
    wide = jnp.pad(shifted_kernels(kernel, size), [*((0, n) for n in lacking), (0, 0), (0, 0)])
    wide = wide.reshape(rows.seen, size, columns.seen, size, inputs, -1).swapaxes(1, 2)
    return wide.reshape(rows.seen, columns.seen, -1, size * size * outputs)


def convolve_and_pool(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    padding: int,
    activation: Callable[[jax.Array], jax.Array],
    pool: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Convolution, activation and 2x2 pooling, by blocks of pixels.

    Args:
      x: images [B, H, W, I].
      kernel: [k, l, I, O].
      bias: [O].
      padding: zeros on each side, in pixels.
      activation: elementwise activation.
      pool: pooling of windows, [..., 4, C] -> [..., C]; see `pooling.OVER_WINDOWS`.

    Returns:
      [B, H', W', O], H' = (H + 2 * padding - k + 1) // 2.
    """
    _, H, W, inputs = x.shape
    # Blocks of 4x4 have a quarter of the patches, where they do not multiply too many zeros.
    size = 4 if inputs <= 4 < min(kernel.shape[:2]) else 2
    rows = axis(H, kernel.shape[0], padding, size)
    columns = axis(W, kernel.shape[1], padding, size)
    x = split(x, rows, columns, size)
    patches = jnp.concatenate(
        [
            x[:, i : i + rows.results, j : j + columns.results]
            for i in range(rows.seen)
            for j in range(columns.seen)
        ],
        axis=-1,
    )
    matrix = kernel_over_blocks(kernel, rows, columns, size).reshape(patches.shape[-1], -1)
    # Reshaped to matrices: with more axes, a CPU transposes an operand of the gradient with respect
    # to the kernel, which is slow.
    flat = patches.reshape(-1, patches.shape[-1])
    y = jnp.matmul(flat, matrix, preferred_element_type=jnp.float32)
    y = y.reshape(*patches.shape[:-1], 4, -1)
    bias = jnp.tile(bias, size * size // 4)[None, None, None, None]
    y = activation((y + bias).astype(x.dtype))
    return join(pool(y), rows, columns, size // 2)
