"""Forward derivatives of functions whose gradient is written by hand.

`jax.custom_vjp` has none. Here the tangent of a result is a primitive, linear in the tangents of
the operands, and its transpose is the gradient: so that is all that a first derivative backwards
computes. Forwards the primitive is the transpose of the gradient, by JAX.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Flat = Sequence[jax.Array]


class Map(NamedTuple):
    """Parameters of the primitive, whose operands are what was saved, and tangents: all arrays.

    Attributes:
      backward: as in `jvp`.
      static: its first arguments.
      saved: structure of what was saved.
      result: structure of the function's result.
      shapes: those and the types of the result's arrays.
      batched: for each `vmap` around the function, the innermost first, the axis of each saved
        array: 0 or None. That of all tangents is 0.
    """

    backward: Callable[..., Any]
    static: tuple[Any, ...]
    saved: Any
    result: Any
    shapes: tuple[ShapedArray, ...]
    batched: tuple[tuple[int | None, ...], ...] = ()

    def split(self, operands: Sequence[Any]) -> tuple[tuple[Any, ...], list[Any]]:
        """Saved values, and the tangents."""
        count = self.saved.num_leaves
        return tuple(operands[:count]), list(operands[count:])

    def along(self, *operands: jax.Array) -> list[jax.Array]:
        """The tangents of the result."""

        def one(saved: Flat, tangents: Flat) -> list[jax.Array]:
            gradient = functools.partial(self._gradient, saved)
            return jax.linear_transpose(gradient, list(self.shapes))(tangents)[0]

        return self._each(one)(*self.split(operands))

    def back(self, saved: Flat, by: Flat) -> list[jax.Array]:
        """The gradients by the operands that have tangents."""
        return self._each(self._gradient)(saved, by)

    def _each(self, one: Callable[[Flat, Flat], Any]) -> Callable[[Flat, Flat], Any]:
        for axes in self.batched:
            one = jax.vmap(one, (axes, 0))
        return one

    def _gradient(self, saved: Flat, by: Flat) -> list[jax.Array]:
        kept, gradient = jax.tree.unflatten(self.saved, saved), jax.tree.unflatten(self.result, by)
        return jax.tree.leaves(self.backward(*self.static, kept, gradient))


def jvp(forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
    """The rule of a `jax.custom_jvp` by the two functions of a `jax.custom_vjp`.

    Args:
      forward: (*static, *operands) -> the result, and what the gradient needs.
      backward: (*static, what it needs, gradient by the result) -> gradients by the operands, None
        by those of integers or booleans; linear in the gradient by the result.
    """

    def rule(*given: Any) -> tuple[Any, Any]:
        *static, primals, tangents = given
        y, kept = forward(*static, *primals)
        (saved, structure), (leaves, result) = jax.tree.flatten(kept), jax.tree.flatten(y)
        shapes = tuple(ShapedArray(a.shape, a.dtype) for a in leaves)
        some = [a for a in jax.tree.leaves(tangents) if a.dtype != jax.dtypes.float0]
        parameters = Map(backward, tuple(static), structure, result, shapes)
        return y, jax.tree.unflatten(result, tangent.bind(*saved, *some, map=parameters))

    return rule


def _shapes(*operands: ShapedArray, map: Map) -> list[ShapedArray]:
    batches = operands[-1].shape[: len(map.batched)]
    return [ShapedArray((*batches, *a.shape), a.dtype) for a in map.shapes]


def _lowered(*operands: jax.Array, map: Map) -> list[jax.Array]:
    return map.along(*operands)


@functools.cache
def _compiled(map: Map) -> Callable[..., list[jax.Array]]:
    return jax.jit(map.along)


def _jvp(primals: Any, tangents: Any, *, map: Map) -> tuple[Any, Any]:
    moved = [n for n, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

    def along(*some: jax.Array) -> list[jax.Array]:
        now = dict(zip(moved, some, strict=True))
        return map.along(*(now.get(n, a) for n, a in enumerate(primals)))

    return jax.jvp(along, [primals[n] for n in moved], [tangents[n] for n in moved])


def _transpose(gradient: Any, *operands: Any, map: Map) -> list[Any]:
    saved, tangents = map.split(operands)
    found = map.back(saved, [ad.instantiate_zeros(by) for by in gradient])
    wanted = zip(found, tangents, strict=True)
    return [*(None for _ in saved), *(a if ad.is_undefined_primal(t) else None for a, t in wanted)]


def _batch(operands: Any, dims: Any, *, map: Map) -> tuple[Any, Any]:
    size = next(a.shape[d] for a, d in zip(operands, dims, strict=True) if d is not None)
    front = [a if d is None else jnp.moveaxis(a, d, 0) for a, d in zip(operands, dims, strict=True)]
    (saved, tangents), (axes, others) = map.split(front), map.split(dims)
    every = [
        jnp.broadcast_to(a[None], (size, *a.shape)) if d is None else a
        for a, d in zip(tangents, others, strict=True)
    ]
    axes = tuple(None if d is None else 0 for d in axes)
    y = tangent.bind(*saved, *every, map=map._replace(batched=(*map.batched, axes)))
    return y, [0 for _ in y]


tangent = Primitive("tangent")
tangent.multiple_results = True
tangent.def_impl(lambda *operands, map: _compiled(map)(*operands))
tangent.def_abstract_eval(_shapes)
mlir.register_lowering(tangent, mlir.lower_fun(_lowered, multiple_results=True))
ad.primitive_jvps[tangent] = _jvp
ad.primitive_transposes[tangent] = _transpose
batching.primitive_batchers[tangent] = _batch
