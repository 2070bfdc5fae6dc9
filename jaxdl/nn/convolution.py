"""Two-dimensional convolution as three bilinear primitives, each with a fast form per platform.

With images x, kernel w and output y, a convolution is linear in x and linear in w. It belongs to a
family of three bilinear maps:

- `forward` computes y from (x, w);
- `to_images` computes the gradient with respect to x from (y, w);
- `to_kernel` computes the gradient with respect to w from (x, y).

The transpose of each with respect to either operand is one of the other two. So derivatives of all
orders, in forward and reverse mode, stay within the three, and no form is ever differentiated.

Each form may therefore be whatever is fastest on its platform. On a GPU or TPU all three are XLA's
own convolution. On a CPU, XLA leaves its fast path for gradients with respect to kernels, for
gradients inside `scan`, for images smaller than the kernel, for strides in gradients, and for
kernels that differ between the examples of a `vmap`; for bfloat16 it has no fast path. In these
cases the CPU forms are plain convolutions, or matrix products of patches (im2col). Where oneDNN is
installed, it computes most shapes, see `jaxdl.nn.onednn`.

The files, from the outside in:

- `jaxdl.nn.conv` has the Flax layers;
- this file has `convolve`, the hook `conv_general_dilated` for `nn.Conv`, and the primitives
  with their derivatives;
- `jaxdl.nn.bilinear` makes a bilinear map a JAX primitive, with its rules for `jit` and `vmap`;
- `jaxdl.nn.conv_kernels` has the forms of the three maps, by XLA and for a CPU;
- `jaxdl.nn.onednn` has those by oneDNN, and the table of the shapes that it is faster for;
- `jaxdl.nn.conv_window` has the geometry: sizes, strides and padding.

A convolution that is pooled and has few channels has one more CPU form, in
`jaxdl.nn.conv_pool_blocks`.

Shapes: N members of a `vmap`, each with a kernel of its own; B images of H by W; I channels in, O
channels out; k by l kernels: x [N, B, H, W, I], w [N, k, l, I, O], y [N, B, H', W', O].
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad
from jax.typing import DTypeLike

from jaxdl.nn import bilinear, onednn
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
    """Two-dimensional convolution, fast on every platform and differentiable to all orders.

    Like `lax.conv_general_dilated` it does not flip the kernel.

    Args:
      x: images [B, H, W, I].
      w: kernel [k, l, I, O], of the dtype of `x`.
      strides: down and right, in pixels.
      padding: pixels of zeros (before, after) the rows and the columns; negative numbers crop.

    Returns:
      [B, H', W', O], of the dtype of `x`.

    >>> convolve(jnp.ones((1, 3, 3, 1)), jnp.ones((2, 2, 1, 1)), (1, 1), ((0, 0), (0, 0))).ravel()
    Array([4., 4., 4., 4.], dtype=float32)
    """
    window = Window(tuple(strides), tuple(padding), x.shape[1:3], w.shape[:2])  # type: ignore
    if 0 in (*x.shape, *w.shape, *window.out()):  # the CPU forms do not handle empty arrays
        return xla_forward(x, w, window)
    return forward.bind(x[None], w[None], window=window)[0]


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """`lax.conv_general_dilated` that uses `convolve` where it can: the hook of `nn.Conv`.

    `convolve` handles two spatial dimensions, float32 or bfloat16, the default precision, and
    neither dilation nor groups. XLA handles everything else. Arguments and result are those of
    `lax.conv_general_dilated`.
    """
    supported = (
        lhs.ndim == 4
        and lhs.dtype == rhs.dtype in (jnp.float32, jnp.bfloat16)
        and dimension_numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, LAYOUT)
        and all(n == 1 for n in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and feature_group_count == batch_group_count == 1
        and precision is None
        and preferred_element_type in (None, lhs.dtype)
    )
    if supported:
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
        rows, columns = ((int(low), int(high)) for low, high in padding)
        down, right = window_strides
        return convolve(lhs, rhs, (down, right), (rows, columns))
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


# The three primitives. `conv_kernels` has the maps of one member; a primitive's operands have an
# axis of N members in front. Without `vmap` N is 1, and the map is called on the one member.


def _primitive(
    name: str,
    axes: tuple[str, str, str],
    shape: Callable[[Any, Any, Window], tuple[int, ...]],
    on_cpu: Callable[..., jax.Array],
    by_xla: Callable[..., jax.Array],
) -> Primitive:
    """Makes one of the maps a primitive.

    Args:
      name: name of the map, one of `onednn.MAPS`.
      axes: axis letters of the operands and the result, see `bilinear.primitive`.
      shape: (shapes of both operands, window) -> shape of the result, without the member axis.
      on_cpu: the map of one member on a CPU.
      by_xla: the map of one member elsewhere.
    """

    def map_members(a: jax.Array, b: jax.Array, *, window: Window, cpu: bool) -> jax.Array:
        if a.shape[0] == 1:
            return (on_cpu if cpu else by_xla)(a[0], b[0], window)[None]
        # The CPU forms divide their cache among the members.
        member = functools.partial(on_cpu, members=a.shape[0]) if cpu else by_xla
        return jax.vmap(lambda a, b: member(a, b, window))(a, b)

    def abstract_eval(a: Any, b: Any, *, window: Window) -> ShapedArray:
        return ShapedArray((a.shape[0], *shape(a.shape, b.shape, window)), a.dtype)

    def on_this_cpu(a: jax.Array, b: jax.Array, *, window: Window) -> jax.Array:
        result = abstract_eval(a, b, window=window)
        engine = onednn.engine_for(name, a, b, result, window)
        if engine is None:
            return map_members(a, b, window=window, cpu=True)
        return onednn.convolve(engine, name, a, b, result.shape, window)

    on_cpus, default = (functools.partial(map_members, cpu=cpu) for cpu in (True, False))
    full = f"convolution_{name}"
    return bilinear.primitive(full, axes, abstract_eval, on_cpus, default, on_this_cpu)


# Axis letters: p, q are the rows and columns of the output, the others as in the docstring above.
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


# Derivatives. `defbilinear` takes the transposes with respect to the first and the second operand:
# functions of the gradient of the result (the first argument) and of both operands.
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
