"""Operations of a program, counted from its equations before anything is compiled.

Loops count as often as they run, and the backward pass where its layer stands: compilers' own
analyses count a loop's body once, and a convolution by how it happens to be written.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

# Operations a second on bfloat16 matrices, dense, of one device; the makers' figures, by the start
# of the device's name.
PEAKS = {
    "NVIDIA H200": 989e12, "NVIDIA H100": 989e12, "NVIDIA A100": 312e12, "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12, "Tesla V100": 125e12, "Tesla T4": 65e12, "TPU v2": 46e12,
    "TPU v3": 123e12, "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}  # fmt: skip
REDUCTIONS = ("reduce_", "cum", "argm", "sort")


def count(program: core.ClosedJaxpr) -> Counter[str]:
    """Floating-point operations of a program by scope, such as `VGG/Conv_0`.

    A multiplication and an addition count as two, each element of another operation's result as
    one (of its operand, where that is reduced). Of a condition's branches the costliest counts, of
    those of `platform_dependent` the default: the model, not how one platform computes it. A
    `while_loop`, which does not say how often it runs, counts once.
    """
    return _count(program.jaxpr, "")


def share(flops_per_second: float, device: jax.Device, devices: int) -> dict[str, float]:
    """`flops_per_second`, and where the device's peak is known the `share_of_peak`.

    The peak is that of bfloat16, whatever the run computes in. Of a CPU none is known.
    """
    kind = device.device_kind
    # The whole word: an L40 is no L4.
    peak = next((p for name, p in PEAKS.items() if re.match(rf"{name}\b", kind)), None)
    known = {"share_of_peak": flops_per_second / (peak * devices)} if peak else {}
    return {"flops_per_second": flops_per_second} | known


def speed(
    examples: int, per_step: int, device: jax.Device, devices: int, steps_per_second: float
) -> dict[str, float]:
    """Rates of a run that makes so many steps a second, of so many examples and FLOPs each."""
    return {
        "examples_per_second": round(steps_per_second * examples, 1),
        **share(steps_per_second * per_step, device, devices),
    }


def branches(program: core.ClosedJaxpr) -> int:
    """The most branches that a condition of a program has, at any depth; 1: there is none."""
    return _branches(program.jaxpr)


def _branches(jaxpr: Any) -> int:
    most = 1
    for equation in jaxpr.eqns:
        inner = _inner(equation)
        own = equation.primitive.name == "cond" and not equation.params.get("branches_platforms")
        most = max(most, len(inner) if own else 1, *map(_branches, inner))
    return most


def primitives(program: core.ClosedJaxpr) -> set[str]:
    """The names of all primitives that a program uses, at any depth."""
    return set(_names(program.jaxpr))


def _names(jaxpr: Any) -> Iterator[str]:
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in _inner(equation):
            yield from _names(inner)


def _inner(equation: Any) -> list[Any]:
    """The programs that an equation calls."""
    found = jax.tree.leaves(
        list(equation.params.values()),
        is_leaf=lambda p: isinstance(p, core.ClosedJaxpr | core.Jaxpr),
    )
    programs = [p for p in found if isinstance(p, core.ClosedJaxpr | core.Jaxpr)]
    return [p.jaxpr if isinstance(p, core.ClosedJaxpr) else p for p in programs]


def _count(jaxpr: Any, outer: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for equation in jaxpr.eqns:
        scope = _scope(f"{outer}/{equation.source_info.name_stack}")
        inner: list[Counter[str]] = [_count(called, scope) for called in _inner(equation)]
        if equation.primitive.name == "cond" and equation.params.get("branches_platforms"):
            total += inner[-1]
        elif equation.primitive.name == "cond":
            costliest: Counter[str] = max(inner, key=lambda branch: branch.total())
            total += costliest
        elif inner:
            times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
            for found in inner:
                total += Counter({name: n * times for name, n in found.items()})
        else:
            total[scope] += _own(equation)
    return total


def _scope(stack: str) -> str:
    """Path of layers: `transpose(jvp(VGG))/Conv_0/Conv_0.pad` -> `VGG/Conv_0`.

    Flax puts a layer's method into a scope of its own below the layer's, or in its place.
    """
    while (bare := re.sub(r"\w+\(([^()]*)\)", r"\1", stack)) != stack:
        stack = bare
    names = [name.partition(".")[0] for name in stack.split("/")]
    pairs = zip(names, ["", *names], strict=False)
    return "/".join(name for name, last in pairs if name not in ("", last))


def _own(equation: Any) -> int:
    """Operations of one equation that calls no other program."""
    name, result = equation.primitive.name, equation.outvars[0].aval
    shapes: list[Any] = [getattr(v.aval, "shape", ()) for v in equation.invars]
    if name == "dot_general":
        (summed, _), _ = equation.params["dimension_numbers"]
        return 2 * math.prod(result.shape) * math.prod(shapes[0][d] for d in summed)
    if name == "conv_general_dilated":
        spatial = equation.params["dimension_numbers"].rhs_spec[1:]
        return 2 * math.prod(result.shape) * math.prod(shapes[1][d] for d in spatial)
    if name.startswith("convolution_"):  # of jaxdl.nn.convolution
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


# What only moves or makes numbers.
MOVES = frozenset(
    """broadcast_in_dim reshape transpose slice dynamic_slice dynamic_update_slice gather scatter
    concatenate pad squeeze expand_dims rev split copy iota convert_element_type select_n
    bitcast_convert_type optimization_barrier sharding_constraint stop_gradient random_bits
    random_wrap random_unwrap""".split()  # noqa: SIM905
)
