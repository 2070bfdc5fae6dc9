"""Convolution and pooling on blocks of pixels: with few channels far faster on a CPU.

s by s pixels of C channels are one pixel of s * s * C. A kernel that makes the results of a whole
block from the blocks it sees multiplies zeros too; but there are fewer patches to copy, products
are wider, and what is pooled lies side by side.

Shapes: B images of H by W; k by l kernels of I channels in and O out; s pixels a side of a block.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Axis(NamedTuple):
    """One axis of images whose convolution is pooled by pairs, in blocks.

    Attributes:
      pooled: pairs of results; an odd last result is dropped.
      results: blocks of results, all but the last full.
      blocks: blocks of pixels that those see.
      seen: of them, what one block of results sees.
      padding: pixels of zeros before and after; negative ones are cut off.
    """

    pooled: int
    results: int
    blocks: int
    seen: int
    padding: tuple[int, int]


def axis(pixels: int, kernel: int, padding: int, size: int) -> Axis:
    """Window along an axis of so many pixels, of a kernel over `padding` zeros on both sides."""
    pooled = (pixels + 2 * padding - kernel + 1) // 2
    results = -(-pooled // (size // 2))
    seen = 1 + -(-(kernel - 1) // size)
    blocks = results + seen - 1
    return Axis(pooled, results, blocks, seen, (padding, blocks * size - padding - pixels))


def split(x: jax.Array, rows: Axis, columns: Axis, size: int) -> jax.Array:
    """Images [B, H, W, I] in blocks: [B, rows.blocks, columns.blocks, s * s * I]."""
    pads = [(0, 0, 0), (*rows.padding, 0), (*columns.padding, 0), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)
    x = x.reshape(x.shape[0], rows.blocks, size, columns.blocks, size, -1).swapaxes(2, 3)
    return x.reshape(x.shape[0], rows.blocks, columns.blocks, -1)


def join(x: jax.Array, rows: Axis, columns: Axis, side: int) -> jax.Array:
    """The pooled results of blocks, `side` by `side` each, as images [B, pooled, pooled, O]."""
    x = x.reshape(x.shape[0], rows.results, columns.results, side, side, -1).swapaxes(2, 3)
    x = x.reshape(x.shape[0], rows.results * side, columns.results * side, -1)
    return x[:, : rows.pooled, : columns.pooled]


def shifted(kernel: jax.Array, size: int) -> jax.Array:
    """[k, l, I, O] -> [k + s - 1, l + s - 1, I, s * s * O]: the kernel at each pixel of a block.

    Those at the same place of their pooling windows stand together, from window to window.
    """
    places = [range(first, size, 2) for first in range(2)]
    pads = [
        ((i, size - 1 - i), (j, size - 1 - j), (0, 0), (0, 0))
        for rows in places
        for columns in places
        for i in rows
        for j in columns
    ]
    return jnp.concatenate([jnp.pad(kernel, pad) for pad in pads], axis=-1)


def of_blocks(kernel: jax.Array, rows: Axis, columns: Axis, size: int) -> jax.Array:
    """The kernel [k, l, I, O] over blocks: [rows.seen, columns.seen, s * s * I, s * s * O]."""
    height, width, inputs, outputs = kernel.shape
    lacking = [rows.seen * size - (height + size - 1), columns.seen * size - (width + size - 1)]
    wide = jnp.pad(shifted(kernel, size), [*((0, n) for n in lacking), (0, 0), (0, 0)])
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
    """The pooled activations of a convolution: [B, H', W', O], H' = (H + 2 * padding - k + 1) // 2.

    Args:
      x: images [B, H, W, I].
      kernel: [k, l, I, O].
      bias: [O].
      padding: zeros on each side.
      activation: of each result.
      pool: windows [..., 4, C] -> [..., C].
    """
    _, H, W, inputs = x.shape
    # Where blocks of four multiply not too many zeros, they have a quarter of the patches.
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
    matrix = of_blocks(kernel, rows, columns, size).reshape(patches.shape[-1], -1)
    # Of matrices: of more axes a CPU turns one around for the gradient by the kernel.
    flat = patches.reshape(-1, patches.shape[-1])
    y = jnp.matmul(flat, matrix, preferred_element_type=jnp.float32)
    y = y.reshape(*patches.shape[:-1], 4, -1)
    bias = jnp.tile(bias, size * size // 4)[None, None, None, None]
    y = activation((y + bias).astype(x.dtype))
    return join(pool(y), rows, columns, size // 2)
