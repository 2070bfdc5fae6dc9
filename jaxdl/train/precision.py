"""Precision of a function: its operations in float64 beside those in float32.

The function is traced as it is. Each operation is then computed twice: from float32 results in
float32, and from float64 results in float64. Random numbers are the same in both. The operations at
which the relative error grows are those that lose precision, such as a difference of two large
numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxdl.nn import conv_kernels
from jaxdl.train.operations import BACKWARD, CALLS, LOOPS, layer_of, phase_of, to_jaxpr, to_numpy

NARROW = (jnp.float32, jnp.bfloat16, jnp.float16)
# Their results are bits of float32, which have no counterpart in float64.
FIXED = ("bitcast_convert_type",)
CONVOLUTIONS = {
    "convolution_forward": conv_kernels.xla_forward,
    "convolution_to_images": conv_kernels.xla_to_images,
    "convolution_to_kernel": conv_kernels.xla_to_kernel,
}


class Loss(NamedTuple):
    """Loss of precision of an operation, in the Euclidean norm.

    Attributes:
      layer: path of the layer.
      primitive: name of JAX's primitive.
      phase: forward, backward, or outside of the gradient: before or after.
      type: type and shape of its first floating result.
      error: largest relative error of a result.
      before: largest relative error of an argument.
    """

    layer: str
    primitive: str
    phase: str
    type: str
    error: float
    before: float


class Pair(NamedTuple):
    """An array in both precisions, and its relative error."""

    narrow: Any
    wide: Any
    error: float = 0.0


def losses(function: Callable[..., Any], *arguments: Any) -> list[Loss]:
    """Compares every operation of a function with its counterpart in float64.

    Args:
      function: function from arrays to a pytree of arrays.
      *arguments: pytrees of arrays, which count as exact.

    Returns:
      The operations with floating results, in order.
    """
    program, leaves = to_jaxpr(function, arguments)
    found: list[Loss] = []
    _compare(program, [Pair(x, _widened(x)) for x in leaves], "", found)
    return found


def relative_error(narrow: Any, wide: Any) -> float:
    """Returns |narrow - wide| / |wide| in the Euclidean norm; 0 if both are 0.

    Args:
      narrow: array.
      wide: array of the same shape, taken as exact.
    """
    a, b = (to_numpy(x).astype(np.float64) for x in (narrow, wide))
    same = (a == b) | (np.isnan(a) & np.isnan(b))  # infinities, too
    gap = np.linalg.norm(np.where(same, 0.0, a - b))
    return float(gap / max(np.linalg.norm(b), np.finfo(np.float64).tiny)) if gap else 0.0


def _compare(
    program: core.ClosedJaxpr, arguments: list[Pair], scope: str, found: list[Loss]
) -> list[Pair]:
    """Evaluates a jaxpr in both precisions, appends its losses to `found`, returns its results."""
    jaxpr = program.jaxpr
    values = dict(zip(jaxpr.invars, arguments, strict=True))
    values |= {
        v: Pair(x, _widened(x)) for v, x in zip(jaxpr.constvars, program.consts, strict=True)
    }

    def read(atom: Any) -> Pair:
        if not isinstance(atom, core.Literal):
            return values[atom]
        value = np.asarray(atom.val, _dtype(atom))
        return Pair(jnp.asarray(value), _widened(value))

    for equation in jaxpr.eqns:
        name = "/".join(filter(None, (scope, str(equation.source_info.name_stack))))
        inputs = [read(atom) for atom in equation.invars]
        inner = equation.params.get(CALLS.get(equation.primitive.name, ""))
        if inner is not None:
            closed = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())
            results = _compare(closed, inputs, name, found)
        else:
            results = _pairs(equation, inputs)
            phase = phase_of(name, any(one.phase == BACKWARD for one in found))
            kinds = [v.aval for v in equation.outvars if _is_floating(v.aval)]
            if kinds:
                at = layer_of(name), equation.primitive.name, phase
                errors = (max((p.error for p in pairs), default=0.0) for pairs in (results, inputs))
                found.append(Loss(*at, kinds[0].str_short(), *errors))
        values |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _pairs(equation: Any, inputs: list[Pair]) -> list[Pair]:
    """Computes one operation in both precisions."""
    narrow = _bind(equation, [one.narrow for one in inputs], equation.params)
    with jax.enable_x64(True):
        wide = _wide(equation, [one.wide for one in inputs], narrow)
    errors = [
        relative_error(a, b) if _is_floating(a) else 0.0 for a, b in zip(narrow, wide, strict=True)
    ]
    return [Pair(*one) for one in zip(narrow, wide, errors, strict=True)]


def _wide(equation: Any, inputs: list[Any], narrow: list[Any] | None) -> list[Any]:
    """Computes one operation in float64."""
    name, params = equation.primitive.name, equation.params
    inner = params.get(CALLS.get(name, ""))
    if inner is not None:
        closed = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())
        return _wide_program(closed, inputs)
    if name in LOOPS:
        return _wide_loop(equation, inputs)
    if name in CONVOLUTIONS:
        by_xla = CONVOLUTIONS[name]
        return [jax.vmap(lambda a, b: by_xla(a, b, params["window"]))(*inputs)]
    if name in FIXED:
        return [_widened(x) for x in narrow or _bind(equation, inputs, params)]
    if name == "reduce_precision":
        return inputs
    widened = {key: np.dtype(np.float64) if _is_narrow(v) else v for key, v in params.items()}
    return _bind(equation, inputs, widened)


def _wide_program(program: core.ClosedJaxpr, arguments: list[Any]) -> list[Any]:
    """Evaluates a jaxpr in float64."""
    jaxpr = program.jaxpr
    values = dict(zip(jaxpr.invars, arguments, strict=True))
    values |= {v: _widened(x) for v, x in zip(jaxpr.constvars, program.consts, strict=True)}

    def read(atom: Any) -> Any:
        if isinstance(atom, core.Literal):
            return _widened(np.asarray(atom.val, _dtype(atom)))
        return values[atom]

    for equation in jaxpr.eqns:
        results = _wide(equation, [read(atom) for atom in equation.invars], None)
        values |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _wide_loop(loop: Any, inputs: list[Any]) -> list[Any]:
    """Computes a loop or a branch in float64."""
    params = loop.params
    if loop.primitive.name == "cond":
        run = [lambda *x, body=body: _wide_program(body, list(x)) for body in params["branches"]]
        return list(jax.lax.switch(inputs[0], run, *inputs[1:]))
    if loop.primitive.name == "while":
        first = params["cond_nconsts"]
        second = first + params["body_nconsts"]
        tested, fixed, carry = inputs[:first], inputs[first:second], inputs[second:]
        return list(
            jax.lax.while_loop(
                lambda now: _wide_program(params["cond_jaxpr"], [*tested, *now])[0],
                lambda now: _wide_program(params["body_jaxpr"], [*fixed, *now]),
                carry,
            )
        )
    end = params["num_consts"] + params["num_carry"]

    def body(carry: list[Any], rows: list[Any]) -> tuple[list[Any], list[Any]]:
        results = _wide_program(params["jaxpr"], [*inputs[: params["num_consts"]], *carry, *rows])
        return results[: params["num_carry"]], results[params["num_carry"] :]

    carry, rows = jax.lax.scan(
        body,
        inputs[params["num_consts"] : end],
        inputs[end:],
        length=params["length"],
        reverse=params["reverse"],
    )
    return [*carry, *rows]


def _bind(equation: Any, inputs: list[Any], params: dict[str, Any]) -> list[Any]:
    """Calls a primitive."""
    primitive = equation.primitive
    results = primitive.bind(*inputs, **primitive.get_bind_params(params))
    return list(results) if primitive.multiple_results else [results]


def _is_floating(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def _is_narrow(value: Any) -> bool:
    """Returns whether a parameter of a primitive is a type that float64 replaces."""
    return isinstance(value, np.dtype | type) and value in NARROW


def _widened(x: Any) -> Any:
    """Returns an array in float64 if it is floating."""
    if not _is_floating(x):
        return x
    with jax.enable_x64(True):
        return jnp.asarray(x, jnp.float64)


def _dtype(literal: Any) -> Any:
    """Returns the type of a literal, which may be a number of Python."""
    return literal.aval.dtype
