"""Bilinear maps as JAX primitives: derivatives of all orders, forwards and backwards.

A map that is a primitive has a form of its own for each platform and, as the transposes of one, the
other maps of its family: none of them is ever differentiated through.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

Map = Callable[..., jax.Array]


def primitive(
    name: str,
    axes: tuple[str, str, str],
    result: Callable[..., ShapedArray],
    on_cpu: Map,
    default: Map,
) -> Primitive:
    """A map of two operands, without its derivatives.

    Args:
      name: of the primitive.
      axes: of the two operands and of the result, a letter each. They all begin with the same one,
        of members: what each of those gives is of its operands alone.
      result: shape and type of the result, of those of the operands and the parameters.
      on_cpu: the map on a CPU, of operands and parameters.
      default: the map elsewhere.
    """
    made = Primitive(name)
    mlir.register_lowering(made, mlir.lower_fun(on_cpu, multiple_results=False), platform="cpu")
    mlir.register_lowering(made, mlir.lower_fun(default, multiple_results=False))
    made.def_abstract_eval(result)

    @functools.cache
    def compiled(**parameters: Any) -> Map:
        return jax.jit(functools.partial(made.bind, **parameters))

    made.def_impl(lambda a, b, **parameters: compiled(**parameters)(a, b))

    def batch(
        operands: tuple[jax.Array, jax.Array], dims: tuple[Any, Any], **parameters: Any
    ) -> tuple[jax.Array, int]:
        """A batch of both is one of members; of one, goes to an axis of its own in the result."""
        own = [d is not None for d in dims]
        label = axes[2][0]
        if not all(own):
            mine, other = axes[own.index(True)], axes[own.index(False)]
            label = next(c for c in mine if c in axes[2] and c not in other)
        size = next(a.shape[d] for a, d in zip(operands, dims, strict=True) if d is not None)
        merged = [
            a if d is None else _merge(a, d, names.index(label))
            for a, d, names in zip(operands, dims, axes[:2], strict=True)
        ]
        y = made.bind(*merged, **parameters)
        place = axes[2].index(label)
        return y.reshape(*y.shape[:place], size, -1, *y.shape[place + 1 :]), place

    batching.primitive_batchers[made] = batch
    return made


def _merge(a: jax.Array, batch: int, place: int) -> jax.Array:
    """The axis `batch` multiplied into what is axis `place` without it."""
    a = jnp.moveaxis(a, batch, place)
    return a.reshape(*a.shape[:place], -1, *a.shape[place + 2 :])
