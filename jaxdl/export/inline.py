"""Inlining of a traced function for jax2onnx, which reads its jaxpr.

The primitives of `jaxdl.nn` become their default forms, and of the forms for different
platforms (`jax.lax.platform_dependent`) the default one stays. Operations that jax2onnx 0.17 or
ONNX Runtime lack become others of the same result: a scan from the last position to the first, a
choice between booleans, the maximum over windows of two axes of four, and running extremes.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

from jaxdl.nn import lowering

# Primitives that call a function, and the names of the parameter that holds it.
CALLS = {
    *("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
}
LARGEST_WINDOW = 64  # entries
CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def inlined(function: Callable[..., Any], *args: Any) -> Callable[..., list[jax.Array]]:
    """Traces a function and inlines it.

    Args:
      function: a function of pytrees of arrays.
      args: shapes and types of its arguments, such as `jax.ShapeDtypeStruct`s.

    Returns:
      The function of the leaves of the arguments to the list of leaves of the result.
    """
    closed = jax.make_jaxpr(function)(*args)
    return lambda *leaves: _evaluate(closed.jaxpr, closed.consts, leaves)


def _evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Evaluates a jaxpr, one equation after the other."""
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= dict(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        results = _apply(equation, [read(atom) for atom in equation.invars])
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation: Any, operands: list[Any]) -> list[Any]:
    """Results of one equation."""
    primitive, parameters = equation.primitive, equation.params
    name = primitive.name
    if name == "platform_index":  # read only by the `cond` that chooses a platform
        return [0]
    if primitive in lowering.DEFAULTS:
        default = functools.partial(lowering.DEFAULTS[primitive], **parameters)
        return inlined(default, *operands)(*operands)
    if name == "cond":
        return _cond(parameters, operands)
    if name == "scan":
        return _scan(parameters, operands)
    if name == "while":
        return _while(parameters, operands)
    if name == "select_n" and operands[1].dtype == bool and len(operands) == 3:
        which, no, yes = operands  # ONNX Runtime has no choice between booleans
        return [(which & yes) | (~which & no)]
    if name == "reduce_window_max" and _is_simple(**parameters):
        return [_window_max(operands[0], **parameters)]
    if name in ("cummax", "cummin"):  # ONNX Runtime has none of integers
        extreme = jnp.maximum if name == "cummax" else jnp.minimum
        return [_running(operands[0], extreme, **parameters)]
    if name in CALLS:
        return _function(next(parameters[key] for key in CALLED if key in parameters))(*operands)
    results = primitive.bind(*operands, **parameters)
    return list(results) if primitive.multiple_results else [results]


def _function(jaxpr: Any) -> Callable[..., list[Any]]:
    """A jaxpr as a function of its arguments."""
    inner, consts = (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, ClosedJaxpr) else (jaxpr, ())
    return lambda *args: _evaluate(inner, consts, args)


def _is_simple(
    window_dimensions: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    base_dilation: tuple[int, ...],
    **others: Any,
) -> bool:
    """Checks that `_window_max` handles the windows."""
    del others
    sizes = zip(window_dimensions, padding, strict=True)
    is_small = math.prod(window_dimensions) <= LARGEST_WINDOW
    return is_small and max(base_dilation) == 1 and all(0 <= min(p) <= max(p) < n for n, p in sizes)


def _window_max(
    x: jax.Array,
    window_dimensions: tuple[int, ...],
    window_strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    base_dilation: tuple[int, ...],
    window_dilation: tuple[int, ...],
) -> jax.Array:
    """Maximum over windows, as that of one strided slice for each entry of a window.

    Args:
      x: the array.
      window_dimensions: size of a window along each axis.
      window_strides: steps between windows.
      padding: entries of minus infinity before and after, fewer than a window has.
      base_dilation: ones.
      window_dilation: steps between the entries of a window.
    """
    del base_dilation
    # A copy of the first or last entry in place of minus infinity leaves the maxima as they are.
    for n, (low, high) in enumerate(padding):
        if low or high:
            size = x.shape[n]
            head, tail = (lax.slice_in_dim(x, i, i + 1, axis=n) for i in (0, size - 1))
            x = lax.concatenate([*[head] * low, x, *[tail] * high], n)
    axes = zip(window_dimensions, window_strides, window_dilation, strict=True)
    choices = []  # slices of each axis
    for n, (size, stride, dilation) in zip(x.shape, axes, strict=True):
        reach = (size - 1) * dilation + 1
        if reach == stride == 1:
            choices.append([slice(None)])
        else:
            span = (n - reach) // stride * stride + 1
            starts = range(0, reach, dilation)
            choices.append([slice(start, start + span, stride) for start in starts])
    return functools.reduce(jnp.maximum, (x[index] for index in itertools.product(*choices)))


def _running(
    x: jax.Array,
    extreme: Callable[[jax.Array, jax.Array], jax.Array],
    axis: int,
    reverse: bool,
) -> jax.Array:
    """Running extreme along an axis, as log2 of its length extremes of shifted copies."""
    size, shift = x.shape[axis], 1
    while shift < size:
        cut = functools.partial(lax.slice_in_dim, x, axis=axis)
        both = extreme(cut(0, size - shift), cut(shift, size))
        x = lax.concatenate(
            [both, cut(size - shift, size)] if reverse else [cut(0, shift), both], axis
        )
        shift *= 2
    return x


def _cond(parameters: dict[str, Any], operands: list[Any]) -> list[Any]:
    index, *args = operands
    branches = [_function(branch) for branch in parameters["branches"]]
    platforms = parameters.get("branches_platforms")
    if platforms is not None:
        default = next(n for n, names in enumerate(platforms) if names is None)
        return branches[default](*args)
    result: list[Any] = lax.switch(index, branches, *args)
    return result


def _scan(parameters: dict[str, Any], operands: list[Any]) -> list[Any]:
    if "ft_in" in parameters:  # from jax 0.12 on, as in `train.operations`, which stands alone
        num_consts, num_carry = map(len, parameters["ft_in"].unpack()[:2])
    else:
        num_consts, num_carry = parameters["num_consts"], parameters["num_carry"]
    consts = operands[:num_consts]
    carry = operands[num_consts : num_consts + num_carry]
    columns = operands[num_consts + num_carry :]
    backwards, body = parameters["reverse"], _function(parameters["jaxpr"])

    def step(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
        results = body(*consts, *carry, *row)
        return results[:num_carry], results[num_carry:]

    def flip(arrays: list[Any]) -> list[Any]:
        return [lax.rev(a, (0,)) for a in arrays] if backwards else arrays

    last, rows = lax.scan(step, carry, flip(columns), length=parameters["length"])
    return [*last, *flip(rows)]


def _while(parameters: dict[str, Any], operands: list[Any]) -> list[Any]:
    for_cond, for_body = parameters["cond_nconsts"], parameters["body_nconsts"]
    cond_consts = operands[:for_cond]
    body_consts = operands[for_cond : for_cond + for_body]
    test, body = _function(parameters["cond_jaxpr"]), _function(parameters["body_jaxpr"])
    result: list[Any] = lax.while_loop(
        lambda carry: test(*cond_consts, *carry)[0],
        lambda carry: body(*body_consts, *carry),
        operands[for_cond + for_body :],
    )
    return result
