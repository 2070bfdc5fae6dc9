"""Forward-mode derivatives of functions with a hand-written gradient.

A function with `jax.custom_vjp` has no forward mode, and so no Hessian-vector products by it. Here
the function is a `jax.custom_jvp`. Its rule returns the tangent of the result by a primitive named
`tangent`, which is linear in the operands' tangents:

- in reverse mode JAX transposes the primitive, and the transpose is the hand-written gradient. A
  first gradient computes nothing else;
- in forward mode the primitive is evaluated as the transpose of that gradient, which JAX derives;
- for higher orders JAX differentiates the hand-written gradient itself.

The primitive's operands are arrays only: first the values that the forward function saved for the
gradient, flattened, then the tangents. Everything else is in its one parameter, a `Map`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxdl.nn import lowering

Flat = Sequence[jax.Array]


class Map(NamedTuple):
    """Parameter of the primitive `tangent`: the linear map from tangents to the result's tangent.

    Attributes:
      backward: the hand-written gradient, as in `jvp`.
      static: its static arguments, which come first.
      saved: tree structure of the saved values.
      result: tree structure of the function's result.
      shapes: shapes and dtypes of the arrays of the result.
      batched: for each `vmap` around the function, the innermost first, the batch axis of each
        saved array: 0 or None. All tangents have batch axis 0.
    """

    backward: Callable[..., Any]
    static: tuple[Any, ...]
    saved: Any
    result: Any
    shapes: tuple[ShapedArray, ...]
    batched: tuple[tuple[int | None, ...], ...] = ()

    def split(self, operands: Sequence[Any]) -> tuple[tuple[Any, ...], list[Any]]:
        """Splits the primitive's operands into saved values and tangents."""
        count = self.saved.num_leaves
        return tuple(operands[:count]), list(operands[count:])

    def along(self, *operands: jax.Array) -> list[jax.Array]:
        """Tangents of the result, flattened: the transpose of the gradient."""

        def transposed(saved: Flat, tangents: Flat) -> list[jax.Array]:
            gradient = functools.partial(self._gradient, saved)
            return jax.linear_transpose(gradient, list(self.shapes))(tangents)[0]

        return self._vmapped(transposed)(*self.split(operands))

    def back(self, saved: Flat, by: Flat) -> list[jax.Array]:
        """Gradients with respect to the operands that have tangents, from that of the result."""
        return self._vmapped(self._gradient)(saved, by)

    def _vmapped(self, f: Callable[[Flat, Flat], Any]) -> Callable[[Flat, Flat], Any]:
        """Maps a function of (saved values, tangents) over the batch axes."""
        for axes in self.batched:
            f = jax.vmap(f, (axes, 0))
        return f

    def _gradient(self, saved: Flat, by: Flat) -> list[jax.Array]:
        residuals = jax.tree.unflatten(self.saved, saved)
        gradient = jax.tree.unflatten(self.result, by)
        return jax.tree.leaves(self.backward(*self.static, residuals, gradient))


def jvp(forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the rule of a `jax.custom_jvp` of the two functions of a `jax.custom_vjp`.

    Args:
      forward: (*static, *operands) -> (result, residuals), where the residuals are the values that
        the gradient needs.
      backward: (*static, residuals, gradient of the result) -> gradients of the operands, None for
        those of integers or booleans. Must be linear in the gradient of the result.

    Returns:
      A rule for `defjvp`: (*static, primals, tangents) -> (result, tangent of the result).
    """

    def rule(*arguments: Any) -> tuple[Any, Any]:
        *static, primals, tangents = arguments
        y, residuals = forward(*static, *primals)
        saved, structure = jax.tree.flatten(residuals)
        leaves, result = jax.tree.flatten(y)
        shapes = tuple(ShapedArray(a.shape, a.dtype) for a in leaves)
        # Operands of integers or booleans have tangents of dtype float0: they have no gradient.
        inexact = [a for a in jax.tree.leaves(tangents) if a.dtype != jax.dtypes.float0]
        parameters = Map(backward, tuple(static), structure, result, shapes)
        return y, jax.tree.unflatten(result, tangent.bind(*saved, *inexact, map=parameters))

    return rule


# Rules of the primitive.


def _abstract_eval(*operands: ShapedArray, map: Map) -> list[ShapedArray]:
    lowering.check_axes(operands)
    batches = operands[-1].shape[: len(map.batched)]
    return [ShapedArray((*batches, *a.shape), a.dtype) for a in map.shapes]


def _lower(*operands: jax.Array, map: Map) -> list[jax.Array]:
    return map.along(*operands)


@functools.cache
def _compiled(map: Map) -> Callable[..., list[jax.Array]]:
    return jax.jit(map.along)


def _jvp(primals: Any, tangents: Any, *, map: Map) -> tuple[Any, Any]:
    """Differentiates `Map.along` with respect to the operands whose tangent is not zero."""
    moved = [n for n, t in enumerate(tangents) if type(t) is not ad.Zero]

    def along(*values: jax.Array) -> list[jax.Array]:
        replaced = dict(zip(moved, values, strict=True))
        return map.along(*(replaced.get(n, a) for n, a in enumerate(primals)))

    return jax.jvp(along, [primals[n] for n in moved], [tangents[n] for n in moved])


def _transpose(gradient: Any, *operands: Any, map: Map) -> list[Any]:
    """Gradients with respect to the tangents; the saved values are constants."""
    saved, tangents = map.split(operands)
    gradients = map.back(saved, [ad.instantiate_zeros(by) for by in gradient])
    by_tangents = [
        a if ad.is_undefined_primal(t) else None for a, t in zip(gradients, tangents, strict=True)
    ]
    return [*(None for _ in saved), *by_tangents]


def _batch(operands: Any, dims: Any, *, map: Map) -> tuple[Any, Any]:
    """Moves batch axes to the front, gives one to every tangent, and notes them in the map."""
    size = next(a.shape[d] for a, d in zip(operands, dims, strict=True) if d is not None)
    front = [a if d is None else jnp.moveaxis(a, d, 0) for a, d in zip(operands, dims, strict=True)]
    saved, tangents = map.split(front)
    saved_dims, tangent_dims = map.split(dims)
    tangents = [
        jnp.broadcast_to(a[None], (size, *a.shape)) if d is None else a
        for a, d in zip(tangents, tangent_dims, strict=True)
    ]
    axes = tuple(None if d is None else 0 for d in saved_dims)
    y = tangent.bind(*saved, *tangents, map=map._replace(batched=(*map.batched, axes)))
    return y, [0 for _ in y]


tangent = Primitive("tangent")
tangent.multiple_results = True
tangent.def_impl(lambda *operands, map: _compiled(map)(*operands))
tangent.def_abstract_eval(_abstract_eval)
mlir.register_lowering(tangent, mlir.lower_fun(_lower, multiple_results=True))
ad.primitive_jvps[tangent] = _jvp
ad.primitive_transposes[tangent] = _transpose
batching.primitive_batchers[tangent] = _batch
