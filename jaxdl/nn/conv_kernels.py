"""The three maps of a convolution, by XLA and in the forms that are fastest on a CPU."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxdl.nn.conv_window import Pads, Window

LAYOUT = ("NHWC", "HWIO", "NHWC")
CHUNK = 5 << 20  # bytes of patches that are made at a time: about what a core's cache holds


# The three maps of one member, by XLA.


def xla_forward(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """Result y [B, H', W', O] of images x [B, H, W, I] and a kernel w [k, l, I, O], by XLA."""
    return lax.conv_general_dilated(x, w, window.strides, window.padding, dimension_numbers=LAYOUT)


def xla_to_images(y: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """Gradient with respect to the images, [B, H, W, I], by XLA."""
    x = jax.ShapeDtypeStruct((y.shape[0], *window.image, w.shape[2]), y.dtype)
    return jax.linear_transpose(lambda x: xla_forward(x, w, window), x)(y)[0]


def xla_to_kernel(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    """Gradient with respect to the kernel, [k, l, I, O], by XLA."""
    w = jax.ShapeDtypeStruct((*window.kernel, x.shape[-1], y.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda w: xla_forward(x, w, window), w)(y)[0]


# The three maps of one member out of several, on a CPU.


def cpu_forward(x: jax.Array, w: jax.Array, window: Window, members: int = 1) -> jax.Array:
    """As `xla_forward`, on a CPU; `members`: of an enclosing `vmap` over kernels."""
    B, inputs, outputs = x.shape[0], x.shape[-1], w.shape[-1]
    if window.kernel == (1, 1):
        seen = _pad(x, window.padding)[:, :: window.strides[0], :: window.strides[1]]
        return _product(seen, w[0, 0])
    fits = all(k <= n for k, n in zip(window.kernel, window.image, strict=True))
    if x.dtype == jnp.float32 and members == 1 and fits:
        if min(min(pads) for pads in window.padding) < 0:  # XLA reads beyond what it cuts off
            x, window = _pad(x, window.padding), window._replace(padding=((0, 0), (0, 0)))
        return xla_forward(x, w, window)
    parts = _parts(_pad(_bits(x), window.padding), window, inputs * members)
    matrix = w.reshape(-1, outputs)
    y = lax.map(lambda part: _product(_patches(part, window, x.dtype), matrix), parts)
    return y.reshape(B, *window.out(), outputs)


def cpu_to_images(y: jax.Array, w: jax.Array, window: Window, members: int = 1) -> jax.Array:
    """As `xla_to_images`, on a CPU: a convolution of the spread result with the flipped kernel."""
    if window.kernel == (1, 1) and window.padding == ((0, 0), (0, 0)):
        return _spread(_product(y, w[0, 0].T), window.image, window.strides)
    mirrored = window.mirrored()
    spread = _spread(y, mirrored.image, window.strides)
    return cpu_forward(spread, w[::-1, ::-1].swapaxes(2, 3), mirrored, members)


def cpu_to_kernel(x: jax.Array, y: jax.Array, window: Window, members: int = 1) -> jax.Array:
    """As `xla_to_kernel`, on a CPU: products of patches with the result, summed over parts."""
    inputs, outputs = x.shape[-1], y.shape[-1]
    shape = (*window.kernel, inputs, outputs)
    parts = _parts(_pad(_bits(x), window.padding), window, inputs * members)
    # y with its pixels last: so the product reads both of its operands row by row.
    columns = lax.optimization_barrier(_bits(y).reshape(parts.shape[0], -1, outputs).swapaxes(1, 2))
    wide = jnp.float32 if parts.shape[0] == 1 else x.dtype

    def add(total: jax.Array, operands: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        part, columns = operands
        if columns.dtype != y.dtype:
            columns = lax.bitcast_convert_type(columns, y.dtype)
        patches = _patches(part, window, x.dtype)
        return total + _product(columns.astype(wide), patches.astype(wide), jnp.float32), None

    zero = jnp.zeros((outputs, math.prod(shape[:3])), jnp.float32)
    total, _ = lax.scan(add, zero, (parts, columns))
    return total.T.reshape(shape).astype(x.dtype)


# What they are made of.


def _bits(a: jax.Array) -> jax.Array:
    """The bits of bfloat16, which XLA copies faster on a CPU than the numbers."""
    return lax.bitcast_convert_type(a, jnp.uint16) if a.dtype == jnp.bfloat16 else a


def _product(a: jax.Array, b: jax.Array, dtype: DTypeLike | None = None) -> jax.Array:
    """[..., M, K] @ [K, L], summed in float32: for bfloat16 a CPU has no other that is fast."""
    dimensions = (((a.ndim - 1,), (0,)), ((), ()))
    y = lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)
    return y.astype(dtype or a.dtype)


def _pad(x: jax.Array, pads: Pads) -> jax.Array:
    config = [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _spread(y: jax.Array, image: tuple[int, ...], strides: tuple[int, int]) -> jax.Array:
    """The pixels of y as far apart as the strides say, on images of zeros."""
    sizes = zip(image, y.shape[1:3], strides, strict=True)
    ends = [(0, n - ((m - 1) * s + 1), s - 1) for n, m, s in sizes]
    return lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *ends, (0, 0, 0)])


def _parts(padded: jax.Array, window: Window, inputs: int) -> jax.Array:
    """[B, ...] -> [B / b, b, ...], b images whose patches fit a cache; two parts at least.

    One part, of a B that is a symbol.
    """
    B = padded.shape[0]
    if not isinstance(B, int):
        return padded[None]
    size = math.prod((*window.out(), *window.kernel, inputs))
    size *= padded.dtype.itemsize
    b = max(
        b for b in range(1, B + 1) if B % b == 0 and (b == 1 or (2 * b <= B and b * size <= CHUNK))
    )
    return padded.reshape(B // b, b, *padded.shape[1:])


def _patches(padded: jax.Array, window: Window, dtype: DTypeLike) -> jax.Array:
    """Patches that the kernel sees: padded images [b, ...], or bits -> [b * H' * W', k * l * I]."""
    (rows, columns), (down, right) = window.out(), window.strides
    places = [
        padded[:, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right]
        for i in range(window.kernel[0])
        for j in range(window.kernel[1])
    ]
    patches = jnp.concatenate(places, axis=-1)
    if patches.dtype != dtype:
        patches = lax.bitcast_convert_type(patches, dtype)
    return patches.reshape(padded.shape[0] * rows * columns, -1)
