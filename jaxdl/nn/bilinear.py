"""Bilinear maps as JAX primitives, with derivatives of all orders in both modes.

JAX differentiates a function through its code, so a fast form of a product may have a slow
gradient. A primitive has a form for each platform, and JAX never differentiates these forms. The
transposes of a bilinear map are again bilinear maps, so its derivatives are maps of the same
family. The caller declares them by `jax.interpreters.ad.defbilinear`; see `jaxdl.nn.convolution`
and `jaxdl.nn.dense`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching

from jaxdl.nn import lowering

Map = Callable[..., jax.Array]


def primitive(
    name: str,
    axes: tuple[str, str, str],
    result: Callable[..., ShapedArray],
    on_cpu: Map,
    default: Map,
    here: Map | None = None,
) -> Primitive:
    """Makes a map of two operands a primitive, without its derivatives.

    Args:
      name: name of the primitive.
      axes: axes of the two operands and the result, one letter each. All three begin with the
        letter of the member axis: each member of the result depends only on the same member of the
        operands.
      result: abstract evaluation, (operands' `ShapedArray`s, **parameters) -> the result's.
      on_cpu: the map on a CPU, (a, b, **parameters) -> result.
      default: the map on other platforms, with the same signature.
      here: the map on a CPU of this machine in a program that stays on it, with sizes that are
        numbers; None: `on_cpu`.

    Returns:
      The primitive, with rules for evaluation, `jit` and `vmap`.
    """
    bilinear = Primitive(name)
    lowering.register(bilinear, default, on_cpu, here or on_cpu)

    @bilinear.def_abstract_eval
    def abstract_eval(a: ShapedArray, b: ShapedArray, **parameters: Any) -> ShapedArray:
        lowering.check_axes((a, b))
        return result(a, b, **parameters)

    @functools.cache
    def compiled(**parameters: Any) -> Map:
        return jax.jit(functools.partial(bilinear.bind, **parameters))

    bilinear.def_impl(lambda a, b, **parameters: compiled(**parameters)(a, b))

    batching.primitive_batchers[bilinear] = functools.partial(_batch, bilinear, axes)
    return bilinear


def _batch(
    bilinear: Primitive,
    axes: tuple[str, str, str],
    operands: tuple[jax.Array, jax.Array],
    dims: tuple[Any, Any],
    **parameters: Any,
) -> tuple[jax.Array, int]:
    """Batching rule: merges the batch axis into an existing axis, so the rank stays.

    If both operands are batched, it becomes part of the member axis. If one is, it becomes part
    of an axis that this operand alone shares with the result, such as that of the images.
    """
    batched = [d is not None for d in dims]
    label = axes[2][0]
    if not all(batched):
        own, other = axes[batched.index(True)], axes[batched.index(False)]
        label = next(c for c in own if c in axes[2] and c not in other)
    size = next(a.shape[d] for a, d in zip(operands, dims, strict=True) if d is not None)
    merged = [
        a if d is None else _merge(a, d, names.index(label))
        for a, d, names in zip(operands, dims, axes[:2], strict=True)
    ]
    y = bilinear.bind(*merged, **parameters)
    axis = axes[2].index(label)
    of = batched.index(True)
    before = [n for d, n in enumerate(operands[of].shape) if d != dims[of]]
    sizes = size, before[axes[of].index(label)]
    return y.reshape(*y.shape[:axis], *sizes, *y.shape[axis + 1 :]), axis


def _merge(a: jax.Array, batch: int, axis: int) -> jax.Array:
    """Merges the axis `batch` into `axis`, which is counted without it."""
    a = jnp.moveaxis(a, batch, axis)
    return a.reshape(*a.shape[:axis], a.shape[axis] * a.shape[axis + 1], *a.shape[axis + 2 :])
