"""Implementations of the three convolution maps, by XLA and for CPUs.

`jaxdl.nn.convolution` explains the three maps and where each implementation is used. They work on
one member, without the member axis. On a CPU they use XLA's convolution where it is fast (float32),
and im2col elsewhere: the pixels under the kernel at each position are the rows of a matrix, which
is multiplied by the kernel as a matrix [k * l * I, O]. Patches take k * l times the memory
of the images. So they are made for a few images at a time, as many as fit in a core's cache.

Shapes: B images of H by W; I channels in, O channels out; k by l kernels: images x [B, H, W, I],
kernel w [k, l, I, O], output y [B, H', W', O].
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxdl.nn.conv_window import Pads, Window

LAYOUT = ("NHWC", "HWIO", "NHWC")
CHUNK = 5 << 20  # bytes of patches made at a time: about the size of a core's cache


# The three maps by XLA.


def xla_forward(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """Output y of images x and kernel w, by XLA."""
    return lax.conv_general_dilated(x, w, window.strides, window.padding, dimension_numbers=LAYOUT)


def xla_to_images(y: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """Gradient with respect to the images [B, H, W, I], by XLA; y: the output's gradient."""
    x = jax.ShapeDtypeStruct((y.shape[0], *window.image, w.shape[2]), y.dtype)
    return jax.linear_transpose(lambda x: xla_forward(x, w, window), x)(y)[0]


def xla_to_kernel(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    """Gradient with respect to the kernel [k, l, I, O], by XLA; y: the output's gradient."""
    w = jax.ShapeDtypeStruct((*window.kernel, x.shape[-1], y.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda w: xla_forward(x, w, window), w)(y)[0]


# The three maps on a CPU. `members` is the size of an enclosing `vmap` over kernels: the patches
# of all its members share the cache.


def cpu_forward(x: jax.Array, w: jax.Array, window: Window, members: int = 1) -> jax.Array:
    """Output y of images x and kernel w, on a CPU."""
    B, inputs, outputs = x.shape[0], x.shape[-1], w.shape[-1]
    if window.kernel == (1, 1):
        pixels = _pad(x, window.padding)[:, :: window.strides[0], :: window.strides[1]]
        return _product(pixels, w[0, 0])
    fits = all(k <= n for k, n in zip(window.kernel, window.image, strict=True))
    if x.dtype == jnp.float32 and members == 1 and fits:
        # With negative padding, XLA on a CPU reads memory beyond the pixels that it crops.
        if min(min(pads) for pads in window.padding) < 0:
            x, window = _pad(x, window.padding), window._replace(padding=((0, 0), (0, 0)))
        return xla_forward(x, w, window)
    parts = _parts(_pad(_bits(x), window.padding), window, inputs * members)
    matrix = w.reshape(-1, outputs)
    y = lax.map(lambda part: _product(_patches(part, window, x.dtype), matrix), parts)
    return y.reshape(B, *window.out(), outputs)


def cpu_to_images(y: jax.Array, w: jax.Array, window: Window, members: int = 1) -> jax.Array:
    """Gradient with respect to the images, on a CPU.

    A convolution of the output's gradient y, spread by the strides, with the flipped kernel.
    """
    if window.kernel == (1, 1) and window.padding == ((0, 0), (0, 0)):
        return _spread(_product(y, w[0, 0].T), window.image, window.strides)
    mirrored = window.mirrored()
    spread = _spread(y, mirrored.image, window.strides)
    return cpu_forward(spread, w[::-1, ::-1].swapaxes(2, 3), mirrored, members)


def cpu_to_kernel(x: jax.Array, y: jax.Array, window: Window, members: int = 1) -> jax.Array:
    """Gradient with respect to the kernel, on a CPU.

    Products of the output's gradient y with the patches of the images, summed over the parts of the
    batch: [O, pixels] @ [pixels, k * l * I].
    """
    inputs, outputs = x.shape[-1], y.shape[-1]
    shape = (*window.kernel, inputs, outputs)
    parts = _parts(_pad(_bits(x), window.padding), window, inputs * members)
    # y transposed, with its pixels on the last axis: so the product reads both operands row by row.
    columns = lax.optimization_barrier(_bits(y).reshape(parts.shape[0], -1, outputs).swapaxes(1, 2))
    # A batch of one part is multiplied in float32, bfloat16 or not.
    dtype = jnp.float32 if parts.shape[0] == 1 else x.dtype

    def add(total: jax.Array, operands: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        part, columns = operands
        if columns.dtype != y.dtype:
            columns = lax.bitcast_convert_type(columns, y.dtype)
        patches = _patches(part, window, x.dtype)
        return total + _product(columns.astype(dtype), patches.astype(dtype), jnp.float32), None

    zero = jnp.zeros((outputs, math.prod(shape[:3])), jnp.float32)
    total, _ = lax.scan(add, zero, (parts, columns))
    return total.T.reshape(shape).astype(x.dtype)


# Building blocks of the CPU forms.


def _bits(a: jax.Array) -> jax.Array:
    """bfloat16 as its bits, uint16, which XLA copies faster on a CPU; other dtypes unchanged."""
    return lax.bitcast_convert_type(a, jnp.uint16) if a.dtype == jnp.bfloat16 else a


def _product(a: jax.Array, b: jax.Array, dtype: DTypeLike | None = None) -> jax.Array:
    """[..., M, K] @ [K, L], accumulated in float32: the only fast bfloat16 product on a CPU."""
    dimensions = (((a.ndim - 1,), (0,)), ((), ()))
    y = lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)
    return y.astype(dtype or a.dtype)


def _pad(x: jax.Array, pads: Pads) -> jax.Array:
    """Pads the rows and columns of x [B, H, W, C] by zeros; negative numbers crop."""
    config = [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _spread(y: jax.Array, image: tuple[int, ...], strides: tuple[int, int]) -> jax.Array:
    """Pixels of y `strides` apart from the top left corner, in images of zeros of size `image`."""
    sizes = zip(image, y.shape[1:3], strides, strict=True)
    config = [(0, n - ((m - 1) * s + 1), s - 1) for n, m, s in sizes]
    return lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *config, (0, 0, 0)])


def _parts(padded: jax.Array, window: Window, inputs: int) -> jax.Array:
    """Splits a batch into parts whose patches fit in the cache: [B, ...] -> [B / b, b, ...].

    There are at least two parts, unless B is 1. A symbolic B (in `jax.export`) stays one part.
    """
    B = padded.shape[0]
    if not isinstance(B, int):
        return padded[None]
    size = math.prod((*window.out(), *window.kernel, inputs))  # patches of one image
    size *= padded.dtype.itemsize
    b = max(
        b for b in range(1, B + 1) if B % b == 0 and (b == 1 or (2 * b <= B and b * size <= CHUNK))
    )
    return padded.reshape(B // b, b, *padded.shape[1:])


def _patches(padded: jax.Array, window: Window, dtype: DTypeLike) -> jax.Array:
    """Patches under the kernel: padded images, or their bits -> [b * H' * W', k * l * I]."""
    (rows, columns), (down, right) = window.out(), window.strides
    # For each pixel of the kernel, the pixels of the images that it meets: [b, H', W', I].
    pixels = [
        padded[:, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right]
        for i in range(window.kernel[0])
        for j in range(window.kernel[1])
    ]
    patches = jnp.concatenate(pixels, axis=-1)
    if patches.dtype != dtype:
        patches = lax.bitcast_convert_type(patches, dtype)
    return patches.reshape(padded.shape[0] * rows * columns, -1)
