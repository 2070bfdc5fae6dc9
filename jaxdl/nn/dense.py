"""Dense layers whose bfloat16 is fast on a CPU, too.

Shapes: D features in, F features out, `...` any axes before; M, K and N are axes of matrices.
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

from jaxdl.nn import bilinear

Dimensions = tuple[tuple[Any, Any], tuple[Any, Any]]  # contracted and batch axes of both operands
PLAIN: Dimensions = (((1,), (0,)), ((), ()))  # of two matrices


def general(
    a: jax.Array,
    b: jax.Array,
    dimensions: Dimensions,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> jax.Array:
    """`lax.dot_general`, but as a product of matrices, whose derivatives are fast on a CPU, too.

    Of bfloat16 it adds up in float32 there; the result is rounded to the operands' type either way,
    unless another is asked for.
    """
    (contracted, batch) = dimensions
    if a.dtype != jnp.bfloat16 or b.dtype != jnp.bfloat16:
        if batch[0]:
            return lax.dot_general(a, b, dimensions, precision, preferred_element_type)
        # Of matrices: of more axes a CPU turns one around for the gradient by the kernel.
        left, rows = _matrix(a, contracted[0], last=True)
        right, columns = _matrix(b, contracted[1], last=False)
        y = lax.dot_general(left, right, PLAIN, precision, preferred_element_type)
        return y.reshape(*rows, *columns)
    wanted = preferred_element_type or jnp.bfloat16

    def plain(a: jax.Array, b: jax.Array) -> jax.Array:
        return lax.dot_general(a, b, dimensions, precision, wanted)

    def on_cpu(a: jax.Array, b: jax.Array) -> jax.Array:
        if batch[0]:  # of some of these XLA has none in bfloat16, and of the others it is no faster
            a, b = a.astype(jnp.float32), b.astype(jnp.float32)
            return lax.dot_general(a, b, dimensions, precision).astype(wanted)
        left, rows = _matrix(a, contracted[0], last=True)
        right, columns = _matrix(b, contracted[1], last=False)
        return product(left, right).reshape(*rows, *columns).astype(wanted)

    return lax.platform_dependent(a, b, cpu=on_cpu, default=plain)


def _matrix(a: jax.Array, axes: Sequence[int], last: bool) -> tuple[jax.Array, list[int]]:
    """As a matrix whose last (or first) axis is `axes` together, and the sizes of the others."""
    others = [n for n in range(a.ndim) if n not in axes]
    rest, K = ([a.shape[n] for n in which] for which in (others, axes))
    a = a.transpose(*others, *axes) if last else a.transpose(*axes, *others)
    shape = (math.prod(rest), math.prod(K))
    return a.reshape(shape if last else shape[::-1]), rest


# `products` is [N, M, K] by [N, K, L] in bfloat16 -> float32 [N, M, L]: of the N members of a
# `vmap`, or of one pair.


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """[M, K] by [K, L] in bfloat16 -> float32 [M, L]; the gradient by it is rounded to bfloat16."""
    return lax.squeeze(products.bind(a[None], b[None]), (0,))


def _each(f: bilinear.Map) -> bilinear.Map:
    """A function of two matrices, of each member's two."""

    def of_members(a: jax.Array, b: jax.Array) -> jax.Array:
        if a.shape[0] == 1:
            return f(lax.squeeze(a, (0,)), lax.squeeze(b, (0,)))[None]
        return jax.vmap(f)(a, b)

    return of_members


def _turned(a: jax.Array) -> jax.Array:
    """The transpose of a matrix, of columns taken a few at a time.

    XLA folds a plain transpose into the product, and of a product that contracts rows with rows it
    has none in bfloat16: it computes it in float32, in 3 to 5 times the time.
    """
    M, K = a.shape
    few = next(n for n in (8, 4, 2, 1) if K % n == 0)
    return a.reshape(M, K // few, few).transpose(1, 2, 0).reshape(K, M)


_forward = _each(lambda a, b: lax.dot_general(a, b, PLAIN, preferred_element_type=jnp.float32))
_to_left = _each(lambda by, b: product(by.astype(b.dtype), b.T).astype(b.dtype))
_to_right = _each(lambda a, by: product(_turned(a), by.astype(a.dtype)).astype(a.dtype))

products = bilinear.primitive(
    "matrix_product",
    ("NMK", "NKL", "NML"),
    lambda a, b: ShapedArray((*a.shape[:2], b.shape[2]), jnp.float32),
    _forward,
    _forward,
)
ad.defbilinear(products, lambda by, _, b: _to_left(by, b), lambda by, a, _: _to_right(a, by))


def promote(x: jax.Array, kernel: jax.Array, bias: Any, *, dtype: Any, **_: Any) -> Any:
    """As Flax does, but for the bias: a CPU adds up the bfloat16 gradients of one very slowly."""
    return *nn.dtypes.promote_dtype(x, kernel, dtype=dtype), bias


class Dense(nn.Dense):
    """`nn.Dense` in interface, parameters, initialisation and result, to rounding: only faster.

    Checkpoints of one are those of the other.
    """

    promote_dtype: Callable[..., Any] = promote
    dot_general: Callable[..., Any] = general

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [..., D] -> [..., F]."""
        dtype = self.dtype or jnp.promote_types(x.dtype, self.param_dtype)
        return super().__call__(x).astype(dtype)
