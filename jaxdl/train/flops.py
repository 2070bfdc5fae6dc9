"""Floating-point operations of a program, counted from its jaxpr before anything is compiled.

A loop's body counts as often as it runs, and the backward pass counts for the layer it belongs to.
The compilers' own analyses count a loop's body once, and count a convolution by its implementation.
`train_step` counts the step, `trainer` derives rates from it, and `dry_run` prints it by layer.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxdl.nn import local_form, lowering

# Peak FLOP/s of one device on dense bfloat16 matrices, from the vendors' data sheets, by the
# beginning of the device's name.
PEAKS = {
    "NVIDIA H200": 989e12, "NVIDIA H100": 989e12, "NVIDIA A100": 312e12, "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12, "Tesla V100": 125e12, "Tesla T4": 65e12, "TPU v2": 46e12,
    "TPU v3": 123e12, "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}  # fmt: skip
REDUCTIONS = ("reduce_", "cum", "argm", "sort")  # prefixes of primitives that reduce
# Primitives without arithmetic: they only move, convert or create numbers.
MOVES = frozenset(
    """broadcast_in_dim reshape transpose slice dynamic_slice dynamic_update_slice gather scatter
    concatenate pad squeeze expand_dims rev split copy iota convert_element_type select_n
    bitcast_convert_type optimization_barrier sharding_constraint stop_gradient random_bits
    random_wrap random_unwrap""".split()  # noqa: SIM905
)


def count(program: core.ClosedJaxpr) -> Counter[str]:
    """Counts the floating-point operations of a program by scope, such as `VGG/Conv_0`.

    A multiplication and an addition count as two. Any other operation counts one per element of its
    result, or of its operand if it is a reduction. `cond` counts its most expensive branch.
    `platform_dependent` counts its default branch, so that the count describes the model and not
    one platform's implementation. A `while_loop`, whose number of iterations is unknown, counts
    once.
    """
    return _count(program.jaxpr, "")


def share(flops_per_second: float, device: jax.Device, devices: int) -> dict[str, float]:
    """Returns `flops_per_second`, and `share_of_peak` if the device's peak is known.

    The peak is that of bfloat16, whatever type the run computes in. It is unknown for CPUs.

    Args:
      flops_per_second: rate of all devices together.
      device: one of the devices.
      devices: number of devices.
    """
    kind = device.device_kind
    # The whole word must match: an L40 is not an L4.
    peak = next((p for name, p in PEAKS.items() if re.match(rf"{name}\b", kind)), None)
    if not peak:
        return {"flops_per_second": flops_per_second}
    return {
        "flops_per_second": flops_per_second,
        "share_of_peak": flops_per_second / (peak * devices),
    }


def speed(
    examples: int, per_step: int, device: jax.Device, devices: int, steps_per_second: float
) -> dict[str, float]:
    """Returns the rates of a run, in examples and floating-point operations per second.

    Args:
      examples: examples per step.
      per_step: floating-point operations per step.
      device: one of the devices.
      devices: number of devices.
      steps_per_second: steps per second.
    """
    return {
        "examples_per_second": round(steps_per_second * examples, 1),
        **share(steps_per_second * per_step, device, devices),
    }


def branches(program: core.ClosedJaxpr) -> int:
    """Returns the greatest number of branches of any `cond` at any depth; 1 without a `cond`."""
    return _branches(program.jaxpr)


def primitives(program: core.ClosedJaxpr) -> set[str]:
    """Returns the names of all primitives in a program, at any depth."""
    return set(_names(program.jaxpr))


def _branches(jaxpr: Any) -> int:
    """Implements `branches` for an open jaxpr."""
    most = 1
    for equation in jaxpr.eqns:
        inner = _inner_jaxprs(equation)
        is_cond = _is_cond(equation) and not _is_platform_dependent(equation)
        most = max(most, len(inner) if is_cond else 1, *map(_branches, inner))
    return most


def _names(jaxpr: Any) -> Iterator[str]:
    """Yields the primitive's name of each equation, at any depth."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in _inner_jaxprs(equation):
            yield from _names(inner)


def _inner_jaxprs(equation: Any) -> list[Any]:
    """Returns the jaxprs that an equation calls, or that its default form is."""
    if equation.primitive in local_form.PRIMITIVES:
        default = functools.partial(lowering.DEFAULTS[equation.primitive], **equation.params)
        return [jax.make_jaxpr(default)(*(v.aval for v in equation.invars)).jaxpr]
    leaves = jax.tree.leaves(
        list(equation.params.values()),
        is_leaf=lambda p: isinstance(p, core.ClosedJaxpr | core.Jaxpr),
    )
    jaxprs = [p for p in leaves if isinstance(p, core.ClosedJaxpr | core.Jaxpr)]
    return [p.jaxpr if isinstance(p, core.ClosedJaxpr) else p for p in jaxprs]


def _is_cond(equation: Any) -> bool:
    return bool(equation.primitive.name == "cond")


def _is_platform_dependent(equation: Any) -> bool:
    """Returns True if a `cond` is a `platform_dependent`, whose last branch is the default."""
    return bool(equation.params.get("branches_platforms"))


def _count(jaxpr: Any, outer: str) -> Counter[str]:
    """Implements `count` for an open jaxpr inside the scope `outer`."""
    total: Counter[str] = Counter()
    for equation in jaxpr.eqns:
        scope = _scope(f"{outer}/{equation.source_info.name_stack}")
        counts: list[Counter[str]] = [_count(called, scope) for called in _inner_jaxprs(equation)]
        if _is_cond(equation) and _is_platform_dependent(equation):
            total += counts[-1]
        elif _is_cond(equation):
            most_expensive: Counter[str] = max(counts, key=lambda branch: branch.total())
            total += most_expensive
        elif counts:
            times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
            for inner in counts:
                total += Counter({name: n * times for name, n in inner.items()})
        else:
            total[scope] += _equation_flops(equation)
    return total


def _scope(stack: str) -> str:
    """Path of layers in a name stack: `transpose(jvp(VGG))/Conv_0/Conv_0.pad` -> `VGG/Conv_0`.

    Flax gives a layer's method a scope of its own, below the layer's scope or in place of it.
    """
    while (bare := re.sub(r"\w+\(([^()]*)\)", r"\1", stack)) != stack:
        stack = bare
    names = [name.partition(".")[0] for name in stack.split("/")]
    pairs = zip(names, ["", *names], strict=False)
    return "/".join(name for name, previous in pairs if name not in ("", previous))


def _equation_flops(equation: Any) -> int:
    """Counts the operations of one equation that calls no other jaxpr."""
    name, result = equation.primitive.name, equation.outvars[0].aval
    shapes: list[Any] = [getattr(v.aval, "shape", ()) for v in equation.invars]
    if name == "dot_general":
        (contracting, _), _ = equation.params["dimension_numbers"]
        return 2 * math.prod(result.shape) * math.prod(shapes[0][d] for d in contracting)
    if name == "conv_general_dilated":
        spatial = equation.params["dimension_numbers"].rhs_spec[1:]
        return 2 * math.prod(result.shape) * math.prod(shapes[1][d] for d in spatial)
    if name.startswith("convolution_"):  # primitives of jaxdl.nn.convolution
        window = equation.params["window"]
        axes = {"to_kernel": (*shapes[0][:2], shapes[0][4], shapes[1][4])}
        N, B, inputs, outputs = axes.get(
            name.removeprefix("convolution_"),
            (*shapes[0][:2], *shapes[1][3:]),
        )
        return 2 * N * B * inputs * outputs * math.prod((*window.out(), *window.kernel))
    if not jnp.issubdtype(getattr(result, "dtype", jnp.int32), jnp.floating):
        return 0
    shape = shapes[0] if name.startswith(REDUCTIONS) and shapes else result.shape
    return math.prod(shape) if name not in MOVES else 0
