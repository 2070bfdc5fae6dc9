"""Convolution as three bilinear maps, each with the form that is fastest where it runs.

With x the images, w the kernel and y the result, `forward` gives y from (x, w), `to_images` the
gradient with respect to x from (y, w), and `to_kernel` that with respect to w from (x, y). The
derivatives of each are the other two, so all orders of differentiation, forwards and backwards,
stay within the three. On a GPU or TPU each is XLA's own convolution. On a CPU XLA leaves its fast
path for gradients with respect to kernels, for gradients inside `scan`, for images smaller than the
kernel, for strides in gradients, for kernels that differ between members of a `vmap`, and has none
for bfloat16; there they are plain convolutions or products of patches.

Shapes: N members with kernels of their own, B images of H by W with I channels in and O out, k by l
kernels: x [N, B, H, W, I], w [N, k, l, I, O], y [N, B, H', W', O].
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad
from jax.typing import DTypeLike

from jaxdl.nn import bilinear

Pads = tuple[tuple[int, int], tuple[int, int]]

LAYOUT = ("NHWC", "HWIO", "NHWC")
CHUNK = 5 << 20  # bytes of patches that are made at a time: about what a core's cache holds


class Window(NamedTuple):
    """Geometry of a convolution: all of it but its operands."""

    strides: tuple[int, int]
    padding: Pads  # pixels of zeros before and after, negative ones are cut off
    image: tuple[int, int]  # H, W
    kernel: tuple[int, int]  # k, l

    def out(self) -> tuple[int, ...]:
        """H', W'."""
        sizes = zip(self.image, self.kernel, self.strides, self.padding, strict=True)
        return tuple(max(0, (n + sum(pad) - k) // s + 1) for n, k, s, pad in sizes)

    def mirrored(self) -> "Window":
        """Window of the gradient with respect to images, over outputs spread by the strides."""
        spread = tuple((n - 1) * s + 1 for n, s in zip(self.out(), self.strides, strict=True))
        before = [k - 1 - pad[0] for k, pad in zip(self.kernel, self.padding, strict=True)]
        pads = tuple(
            (p, n - m - p + k - 1)
            for n, m, p, k in zip(self.image, spread, before, self.kernel, strict=True)
        )
        return Window((1, 1), pads, spread, self.kernel)  # type: ignore[arg-type]


def convolve(x: jax.Array, w: jax.Array, strides: tuple[int, int], padding: Pads) -> jax.Array:
    """The convolution of images [B, H, W, I] with a kernel [k, l, I, O]: [B, H', W', O]."""
    window = Window(tuple(strides), tuple(padding), x.shape[1:3], w.shape[:2])  # type: ignore
    if 0 in (*x.shape, *w.shape, *window.out()):  # nothing to be fast about
        return _xla_forward(x, w, window)
    return forward.bind(x[None], w[None], window=window)[0]


def general(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> jax.Array:
    """`lax.conv_general_dilated`, by `convolve` wherever that can do it: the hook of `nn.Conv`.

    It can for two dimensions of space, without dilation or groups, of float32 or bfloat16, at the
    default precision. All else is XLA's.
    """
    plain = (
        lhs.ndim == 4
        and lhs.dtype == rhs.dtype in (jnp.float32, jnp.bfloat16)
        and dimension_numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, LAYOUT)
        and all(n == 1 for n in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and feature_group_count == batch_group_count == 1
        and precision is None
        and preferred_element_type in (None, lhs.dtype)
    )
    if plain:
        pads = padding
        if isinstance(padding, str):
            pads = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
        pads = tuple((int(low), int(high)) for low, high in pads)
        return convolve(lhs, rhs, tuple(window_strides), pads)
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count,
        batch_group_count,
        precision,
        preferred_element_type,
    )


# The three maps of one member, by XLA.


def _xla_forward(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    return lax.conv_general_dilated(x, w, window.strides, window.padding, dimension_numbers=LAYOUT)


def _xla_to_images(y: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    x = jax.ShapeDtypeStruct((y.shape[0], *window.image, w.shape[2]), y.dtype)
    return jax.linear_transpose(lambda x: _xla_forward(x, w, window), x)(y)[0]


def _xla_to_kernel(x: jax.Array, y: jax.Array, window: Window) -> jax.Array:
    w = jax.ShapeDtypeStruct((*window.kernel, x.shape[-1], y.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda w: _xla_forward(x, w, window), w)(y)[0]


# The three maps of one member out of several, on a CPU.


def _cpu_forward(x: jax.Array, w: jax.Array, window: Window, members: int = 1) -> jax.Array:
    B, inputs, outputs = x.shape[0], x.shape[-1], w.shape[-1]
    if window.kernel == (1, 1):
        seen = _pad(x, window.padding)[:, :: window.strides[0], :: window.strides[1]]
        return _product(seen, w[0, 0])
    fits = all(k <= n for k, n in zip(window.kernel, window.image, strict=True))
    if x.dtype == jnp.float32 and members == 1 and fits:
        if min(min(pads) for pads in window.padding) < 0:  # XLA reads beyond what it cuts off
            x, window = _pad(x, window.padding), window._replace(padding=((0, 0), (0, 0)))
        return _xla_forward(x, w, window)
    parts = _parts(_pad(_bits(x), window.padding), window, inputs * members)
    matrix = w.reshape(-1, outputs)
    y = lax.map(lambda part: _product(_patches(part, window, x.dtype), matrix), parts)
    return y.reshape(B, *window.out(), outputs)


def _cpu_to_images(y: jax.Array, w: jax.Array, window: Window, members: int = 1) -> jax.Array:
    if window.kernel == (1, 1) and window.padding == ((0, 0), (0, 0)):
        return _spread(_product(y, w[0, 0].T), window.image, window.strides)
    mirrored = window.mirrored()
    spread = _spread(y, mirrored.image, window.strides)
    return _cpu_forward(spread, w[::-1, ::-1].swapaxes(2, 3), mirrored, members)


def _cpu_to_kernel(x: jax.Array, y: jax.Array, window: Window, members: int = 1) -> jax.Array:
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


# The three maps as primitives, and their derivatives.


def _primitive(
    name: str,
    axes: tuple[str, str, str],
    shape: Callable[[Any, Any, Window], tuple[int, ...]],
    on_cpu: Callable[..., jax.Array],
    by_xla: Callable[..., jax.Array],
) -> Primitive:
    """One of the maps, of several members; `shape` is that of one member's result."""

    def members(a: jax.Array, b: jax.Array, *, window: Window, cpu: bool) -> jax.Array:
        if a.shape[0] == 1:
            return (on_cpu if cpu else by_xla)(a[0], b[0], window)[None]
        one = functools.partial(on_cpu, members=a.shape[0]) if cpu else by_xla
        return jax.vmap(lambda a, b: one(a, b, window))(a, b)

    def result(a: ShapedArray, b: ShapedArray, *, window: Window) -> ShapedArray:
        return ShapedArray((a.shape[0], *shape(a.shape, b.shape, window)), a.dtype)

    forms = (functools.partial(members, cpu=cpu) for cpu in (True, False))
    return bilinear.primitive(f"convolution_{name}", axes, result, *forms)


IMAGES, KERNEL, RESULT = "NBhwI", "NklIO", "NBpqO"

forward = _primitive(
    "forward",
    (IMAGES, KERNEL, RESULT),
    lambda x, w, window: (x[1], *window.out(), w[4]),
    _cpu_forward,
    _xla_forward,
)
to_images = _primitive(
    "to_images",
    (RESULT, KERNEL, IMAGES),
    lambda y, w, window: (y[1], *window.image, w[3]),
    _cpu_to_images,
    _xla_to_images,
)
to_kernel = _primitive(
    "to_kernel",
    (IMAGES, RESULT, KERNEL),
    lambda x, y, window: (*window.kernel, x[4], y[4]),
    _cpu_to_kernel,
    _xla_to_kernel,
)

# Each is linear in each operand; the gradient is one of the other two.
ad.defbilinear(
    forward,
    lambda y, x, w, **window: to_images.bind(y, w, **window),
    lambda y, x, w, **window: to_kernel.bind(x, y, **window),
)
ad.defbilinear(
    to_images,
    lambda x, y, w, **window: forward.bind(x, w, **window),
    lambda x, y, w, **window: to_kernel.bind(x, y, **window),
)
ad.defbilinear(
    to_kernel,
    lambda w, x, y, **window: to_images.bind(y, w, **window),
    lambda w, x, y, **window: forward.bind(x, w, **window),
)
