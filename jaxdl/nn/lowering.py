"""Forms of a primitive for programs that stay in this process, and for all others.

A handler such as oneDNN's is known to this process alone, and only on a CPU. So a primitive has a
default form, in JAX's own primitives, and may have a form for CPUs and one for here.
"""

from collections.abc import Callable, Iterable
from typing import Any

from jax._src import sharding_impls  # there is no public interface
from jax.extend.core import Primitive
from jax.interpreters import mlir

from jaxdl.errors import UserError

Form = Callable[..., Any]
# The default form of each primitive, for programs that know only JAX's own primitives.
DEFAULTS: dict[Primitive, Form] = {}


def register(primitive: Primitive, default: Form, on_cpu: Form, here: Form) -> None:
    """Registers the forms of a primitive, functions (*operands, **parameters) -> result.

    Args:
      primitive: the primitive.
      default: form on other platforms, in JAX's own primitives.
      on_cpu: form on a CPU.
      here: form on a CPU of this machine, in a program that stays in this process and whose sizes
        are numbers.
    """
    several = primitive.multiple_results
    anywhere, local = (mlir.lower_fun(form, multiple_results=several) for form in (on_cpu, here))

    def lower(context: Any, *operands: Any, **parameters: Any) -> Any:
        rule = local if _stays_here(context) else anywhere
        return rule(context, *operands, **parameters)

    mlir.register_lowering(primitive, lower, platform="cpu")
    mlir.register_lowering(primitive, mlir.lower_fun(default, multiple_results=several))
    DEFAULTS[primitive] = default


def check_axes(operands: Iterable[Any]) -> None:
    """Checks that JAX does not track along which devices the operands of a primitive differ.

    `jax.shard_map` does unless told not to, and then adds a sum over devices to the gradients of
    JAX's own primitives alone.

    Args:
      operands: their abstract values.

    Raises:
      UserError: it does.
    """
    for operand in operands:
        axes = getattr(getattr(operand, "manual_axis_type", None), "varying", None)
        if axes:
            raise UserError(
                f"jaxdl's layers cannot be in a jax.shard_map over {', '.join(sorted(axes))} that "
                "checks axes: give it check_vma=False, and sum gradients by jax.lax.psum"
            )


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
