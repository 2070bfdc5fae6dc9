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
from jax._src import sharding_impls  # there is no public interface
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

Map = Callable[..., jax.Array]
# The default form of each primitive, for exporters that know only JAX's own primitives.
DEFAULTS: dict[Primitive, Map] = {}


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
    mlir.register_lowering(bilinear, _lowering(on_cpu, here or on_cpu), platform="cpu")
    mlir.register_lowering(bilinear, mlir.lower_fun(default, multiple_results=False))
    bilinear.def_abstract_eval(result)
    DEFAULTS[bilinear] = default

    @functools.cache
    def compiled(**parameters: Any) -> Map:
        return jax.jit(functools.partial(bilinear.bind, **parameters))

    bilinear.def_impl(lambda a, b, **parameters: compiled(**parameters)(a, b))

    def batch(
        operands: tuple[jax.Array, jax.Array], dims: tuple[Any, Any], **parameters: Any
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
        return y.reshape(*y.shape[:axis], size, -1, *y.shape[axis + 1 :]), axis

    batching.primitive_batchers[bilinear] = batch
    return bilinear


def _lowering(on_cpu: Map, here: Map) -> Callable[..., Any]:
    """Lowering rule that uses `here` in programs that stay in this process."""
    anywhere, local = (mlir.lower_fun(form, multiple_results=False) for form in (on_cpu, here))

    def lower(context: Any, *operands: Any, **parameters: Any) -> Any:
        rule = local if _stays_here(context) else anywhere
        return rule(context, *operands, **parameters)

    return lower


def _stays_here(context: Any) -> bool:
    """Checks that a call may be lowered to one that only this process understands.

    A program for export must run elsewhere. Where XLA itself divides the arrays among devices, it
    would gather those of a call that it does not understand.

    Args:
      context: the context of the lowering, `mlir.LoweringRuleContext`.
    """
    module = context.module_context
    if module.lowering_parameters.for_export:
        return False
    if not all(isinstance(size, int) for aval in context.avals_in for size in aval.shape):
        return False
    axes = module.axis_context
    if isinstance(axes, sharding_impls.ShardingContext):
        return axes.num_devices == 1
    if isinstance(axes, sharding_impls.SPMDAxisContext):  # a shard_map over all axes of the mesh
        return set(axes.manual_axes) == set(axes.mesh.axis_names)
    return False


def _merge(a: jax.Array, batch: int, axis: int) -> jax.Array:
    """Merges the axis `batch` into `axis`, which is counted without it."""
    a = jnp.moveaxis(a, batch, axis)
    return a.reshape(*a.shape[:axis], -1, *a.shape[axis + 2 :])
