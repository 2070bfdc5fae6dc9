"""Precision of a function: its operations in float64 beside those in float32.

The function is traced as it is. Each operation is then computed twice: from float32 results in
float32, and from float64 results in float64. Random numbers are the same in both. The operations at
which the relative error grows are those that lose precision, such as a difference of two large
numbers.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxdl.nn import lowering
from jaxdl.train.operations import (
    BACKWARD,
    CALLS,
    LOOPS,
    layer_of,
    phase_of,
    scan_sizes,
    to_jaxpr,
    to_numpy,
)

NARROW = (jnp.float32, jnp.bfloat16, jnp.float16)
# Their results are bits of float32, which have no counterpart in float64.
FIXED = ("bitcast_convert_type",)


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

    Infinities and NaN that both have do not count, such as those of a mask. One that only one of
    them has is an infinite error.

    Args:
      narrow: array.
      wide: array of the same shape, taken as exact.
    """
    a, b = (to_numpy(x).astype(np.float64) for x in (narrow, wide))
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return math.inf
    a, b = a[finite], b[finite]
    gap, scale = np.linalg.norm(a - b), np.linalg.norm(b)
    return float(gap / max(scale, np.finfo(np.float64).tiny))


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
    if equation.primitive in lowering.DEFAULTS:
        return _wide_program(_default(equation), inputs)
    if name in FIXED:
        return [_widened(x) for x in narrow or _bind(equation, inputs, params)]
    if name == "reduce_precision":
        return inputs
    return _bind(equation, inputs, {key: _wide_parameter(v) for key, v in params.items()})


def _wide_parameter(value: Any) -> Any:
    """Returns a parameter of a primitive in float64: a type, or a jaxpr such as a scatter's sum."""
    if isinstance(value, core.Jaxpr):
        program = core.ClosedJaxpr(value, ())
        avals: list[Any] = [v.aval for v in value.invars]
        shapes = [
            jax.ShapeDtypeStruct(a.shape, jnp.float64 if _is_floating(a) else a.dtype)
            for a in avals
        ]
        return jax.make_jaxpr(lambda *x: _wide_program(program, list(x)))(*shapes).jaxpr
    is_narrow = isinstance(value, np.dtype | type) and value in NARROW
    return np.dtype(np.float64) if is_narrow else value


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


def _default(equation: Any) -> core.ClosedJaxpr:
    """Returns the jaxpr of the form of a primitive of `jaxdl.nn` in JAX's own primitives."""
    default = functools.partial(lowering.DEFAULTS[equation.primitive], **equation.params)
    with jax.enable_x64(False):
        return jax.make_jaxpr(default)(*(v.aval for v in equation.invars))


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
    num_fixed, num_carried = scan_sizes(params)
    end = num_fixed + num_carried

    def body(carry: list[Any], rows: list[Any]) -> tuple[list[Any], list[Any]]:
        results = _wide_program(params["jaxpr"], [*inputs[:num_fixed], *carry, *rows])
        return results[:num_carried], results[num_carried:]

    carry, rows = jax.lax.scan(
        body,
        inputs[num_fixed:end],
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


def _widened(x: Any) -> Any:
    """Returns an array in float64 if it is floating."""
    if not _is_floating(x):
        return x
    with jax.enable_x64(True):
        return jnp.asarray(x, jnp.float64)


def _dtype(literal: Any) -> Any:
    """Returns the type of a literal, which may be a number of Python."""
    return literal.aval.dtype
