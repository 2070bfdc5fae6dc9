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
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad

from jaxdl.nn import bilinear
from jaxdl.nn.conv_kernels import (
    LAYOUT,
    cpu_forward,
    cpu_to_images,
    cpu_to_kernel,
    xla_forward,
    xla_to_images,
    xla_to_kernel,
)
from jaxdl.nn.conv_window import Pads, Window


def convolve(x: jax.Array, w: jax.Array, strides: tuple[int, int], padding: Pads) -> jax.Array:
    """The convolution of images [B, H, W, I] with a kernel [k, l, I, O]: [B, H', W', O]."""
    window = Window(tuple(strides), tuple(padding), x.shape[1:3], w.shape[:2])  # type: ignore
    if 0 in (*x.shape, *w.shape, *window.out()):  # nothing to be fast about
        return xla_forward(x, w, window)
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
    cpu_forward,
    xla_forward,
)
to_images = _primitive(
    "to_images",
    (RESULT, KERNEL, IMAGES),
    lambda y, w, window: (y[1], *window.image, w[3]),
    cpu_to_images,
    xla_to_images,
)
to_kernel = _primitive(
    "to_kernel",
    (IMAGES, RESULT, KERNEL),
    lambda x, y, window: (*window.kernel, x[4], y[4]),
    cpu_to_kernel,
    xla_to_kernel,
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
