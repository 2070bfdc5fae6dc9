"""Dense layers and matrix products that are fast on a CPU in bfloat16 as well.

Shapes: D features in, F features out; `...` any leading axes; M, K and N are axes of matrices.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.interpreters import ad
from jax.typing import DTypeLike

from jaxdl.nn import bilinear

# Contracted axes and batch axes of both operands, as in `lax.dot_general`.
Axes = tuple[Sequence[int], Sequence[int]]
Dimensions = tuple[Axes, Axes]
PLAIN: Dimensions = (((1,), (0,)), ((), ()))  # the product of two matrices


def dot_general(
    a: jax.Array,
    b: jax.Array,
    dimensions: Dimensions,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """`lax.dot_general` with fast derivatives on a CPU, computed as one product of matrices.

    On a CPU bfloat16 operands are accumulated in float32. The result is rounded to the operands'
    dtype on every platform, unless `preferred_element_type` asks for another.

    Args:
      a: left operand.
      b: right operand.
      dimensions: ((contracted axes of a, of b), (batch axes of a, of b)).
      precision: as in `lax.dot_general`; not used for bfloat16 without batch axes on a CPU.
      preferred_element_type: dtype of the result; None: that of the operands.

    Returns:
      Array with the batch axes first, then the remaining axes of `a`, then those of `b`.

    >>> dot_general(jnp.ones((2, 3, 4)), jnp.ones((4, 5)), (((2,), (0,)), ((), ()))).shape
    (2, 3, 5)
    """
    (contracted, batch) = dimensions
    if a.dtype != jnp.bfloat16 or b.dtype != jnp.bfloat16:
        if batch[0]:
            return lax.dot_general(a, b, dimensions, precision, preferred_element_type)
        # Reshaped to matrices: with more axes, a CPU transposes an operand of the gradient with
        # respect to the kernel, which is slow.
        left, rows = _matrix(a, contracted[0], last=True)
        right, columns = _matrix(b, contracted[1], last=False)
        y = lax.dot_general(left, right, PLAIN, precision, preferred_element_type)
        return y.reshape(*rows, *columns)
    dtype = preferred_element_type or jnp.bfloat16

    def plain(a: jax.Array, b: jax.Array) -> jax.Array:
        return lax.dot_general(a, b, dimensions, precision, dtype)

    def on_cpu(a: jax.Array, b: jax.Array) -> jax.Array:
        # XLA does not implement some batched products in bfloat16, and the others are no faster
        # than in float32.
        if batch[0]:
            a, b = a.astype(jnp.float32), b.astype(jnp.float32)
            return lax.dot_general(a, b, dimensions, precision).astype(dtype)
        left, rows = _matrix(a, contracted[0], last=True)
        right, columns = _matrix(b, contracted[1], last=False)
        return product(left, right).reshape(*rows, *columns).astype(dtype)

    return lax.platform_dependent(a, b, cpu=on_cpu, default=plain)


def _matrix(a: jax.Array, axes: Sequence[int], last: bool) -> tuple[jax.Array, list[int]]:
    """Reshapes to a matrix whose last (or first) axis merges `axes`; also the other axes' sizes."""
    kept = [n for n in range(a.ndim) if n not in axes]
    kept_sizes, merged_sizes = ([a.shape[n] for n in group] for group in (kept, axes))
    a = a.transpose(*kept, *axes) if last else a.transpose(*axes, *kept)
    shape = (math.prod(kept_sizes), math.prod(merged_sizes))
    return a.reshape(shape if last else shape[::-1]), kept_sizes


# The primitive `products` is [N, M, K] by [N, K, L] in bfloat16 -> float32 [N, M, L], with the N
# members of a `vmap`, or one pair of matrices. See `jaxdl.nn.bilinear`.


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Product of bfloat16 matrices [M, K] by [K, L], accumulated and returned in float32 [M, L].

    The gradient of the result is rounded to bfloat16.
    """
    return lax.squeeze(products.bind(a[None], b[None]), (0,))


def _map_members(f: bilinear.Map) -> bilinear.Map:
    """Maps a function of two matrices over the members of two stacks of them."""

    def over_members(a: jax.Array, b: jax.Array) -> jax.Array:
        if a.shape[0] == 1:
            return f(lax.squeeze(a, (0,)), lax.squeeze(b, (0,)))[None]
        return jax.vmap(f)(a, b)

    return over_members


def _transpose(a: jax.Array) -> jax.Array:
    """Transpose of a matrix [M, K], by blocks of columns so that XLA does not fold it.

    XLA folds a plain transpose into the product. A product that contracts rows with rows does not
    exist in bfloat16 on a CPU: XLA computes it in float32, in 3 to 5 times the time.
    """
    M, K = a.shape
    block = next(n for n in (8, 4, 2, 1) if K % n == 0)
    return a.reshape(M, K // block, block).transpose(1, 2, 0).reshape(K, M)


_forward = _map_members(
    lambda a, b: lax.dot_general(a, b, PLAIN, preferred_element_type=jnp.float32)
)
_to_left = _map_members(lambda by, b: product(by.astype(b.dtype), b.T).astype(b.dtype))
_to_right = _map_members(lambda a, by: product(_transpose(a), by.astype(a.dtype)).astype(a.dtype))

products = bilinear.primitive(
    "matrix_product",
    ("NMK", "NKL", "NML"),
    lambda a, b: ShapedArray((*a.shape[:2], b.shape[2]), jnp.float32),
    _forward,
    _forward,
)
ad.defbilinear(products, lambda by, _, b: _to_left(by, b), lambda by, a, _: _to_right(a, by))


def promote(x: jax.Array, kernel: jax.Array, bias: Any, *, dtype: Any, **_: Any) -> Any:
    """Promotes the dtypes of a layer's operands as Flax does, except the bias.

    The bias stays float32: its gradient is a sum, which is very slow in bfloat16 on a CPU.
    """
    return *nn.dtypes.promote_dtype(x, kernel, dtype=dtype), bias


class Dense(nn.Dense):
    """`nn.Dense` with faster products, interchangeable with it.

    Interface, parameters and initialisation are those of `nn.Dense`, and so is the result, up to
    rounding. Checkpoints of one load into the other.
    """

    promote_dtype: Callable[..., Any] = promote
    dot_general: Callable[..., Any] = dot_general

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [..., D] -> [..., F]."""
        dtype = self.dtype or jnp.promote_types(x.dtype, self.param_dtype)
        return super().__call__(x).astype(dtype)
