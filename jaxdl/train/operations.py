"""Operations of a function, one by one: which they are, and what each of them computes.

Calls within the function are looked into. Loops and branches inside XLA are one operation each;
those of one of their iterations can be listed in turn. This module imports JAX alone, so that
`jaxdl diff` can look into another version of the project.
"""

import hashlib
import itertools
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

# Transformations around a layer's name in a name stack.
WRAPPERS = re.compile(r"\b(jvp|transpose|vmap|checkpoint|rematted_computation)\(|\)")
# Primitives that only call a jaxpr, and the parameter that holds it.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
BACKWARD = "backward"
OUTSIDE = "outside every layer"
LOOPS = ("scan", "while", "cond")  # primitives that have iterations; a branch is one iteration
# Path of scopes, equation, arguments and results of an operation.
Evaluated = tuple[str, Any, list[Any], list[Any]]
# Position of a loop among the operations of a function or of an iteration, and an iteration of it.
Path = Sequence[tuple[int, int]]


class Operation(NamedTuple):
    """An operation of a function.

    Attributes:
      layer: path of the layer.
      primitive: name of JAX's primitive.
      phase: forward, backward, or outside of the gradient: before or after.
      type: type and shape of its first result, such as `float32[64,10]`.
      digests: digests of the bits of its results, separated by spaces.
    """

    layer: str
    primitive: str
    phase: str
    type: str
    digests: str

    def __str__(self) -> str:
        return f"{self.layer} ({self.primitive}, {self.phase}) {self.type}"


def layer_of(scope: str) -> str:
    """Returns the path of layers in a name stack, without their methods.

    >>> layer_of("jvp(Net)/block/block._branch/Dense_0")
    'Net/block/Dense_0'
    """
    layers, is_method = [""], False
    for part in filter(None, WRAPPERS.sub("", scope).split("/")):
        layer, dot, _ = part.partition(".")  # Flax names a method other than __call__ after a dot
        if layer != layers[-1] or not (dot or is_method):
            layers.append(layer)
        is_method = bool(dot)
    return "/".join(layers[1:]) or OUTSIDE


def phase_of(scope: str, has_gradient: bool) -> str:
    """Returns the phase of an operation: forward, backward, before or after the gradient.

    Args:
      scope: name stack of the operation.
      has_gradient: whether an earlier operation is of the backward pass.
    """
    if "transpose(" in scope:
        return BACKWARD
    if "jvp(" in scope:
        return "forward"
    return "after the gradient" if has_gradient else "before the gradient"


def operations(function: Callable[..., Any], path: Path, *arguments: Any) -> list[Operation]:
    """Lists the operations of a function in order, with a digest of what each computes.

    Each operation is compiled by itself, so no change elsewhere in the function changes its bits.

    Args:
      function: function from arrays to a pytree of arrays.
      path: loops to look into, from the outside in; empty for the function itself.
      *arguments: pytrees of arrays.
    """
    listed = []
    has_gradient = False
    for scope, equation, _, results in _evaluated(function, path, arguments):
        phase = phase_of(scope, has_gradient)
        has_gradient |= phase == BACKWARD
        type_ = equation.outvars[0].aval.str_short() if equation.outvars else "nothing"
        listed.append(
            Operation(layer_of(scope), equation.primitive.name, phase, type_, _digests(results))
        )
    return listed


def result(function: Callable[..., Any], path: Path, number: int, *arguments: Any) -> np.ndarray:
    """Computes the first result of one operation.

    Args:
      function: function from arrays to a pytree of arrays.
      path: as for `operations`.
      number: position of the operation in `operations`.
      *arguments: pytrees of arrays.
    """
    return to_numpy(_nth(_evaluated(function, path, arguments), number)[3][0])


def iterations(function: Callable[..., Any], path: Path, number: int, *arguments: Any) -> list[str]:
    """Returns digests of the results of each iteration of a loop, separated by spaces.

    Args:
      function: function from arrays to a pytree of arrays.
      path: as for `operations`.
      number: position of the loop in `operations`.
      *arguments: pytrees of arrays.
    """
    _, loop, inputs, _ = _nth(_evaluated(function, path, arguments), number)
    return [_digests(results) for _, _, results in _iterations(loop, inputs)]


def _digests(results: list[Any]) -> str:
    return " ".join(digest(to_numpy(x)) for x in results)


def _nth(iterator: Iterator[Any], number: int) -> Any:
    return next(itertools.islice(iterator, number, None))


def to_jaxpr(function: Callable[..., Any], arguments: Any) -> tuple[core.ClosedJaxpr, list[Any]]:
    """Returns the jaxpr of a function of the leaves of its arguments, and these leaves."""
    leaves, structure = jax.tree.flatten(arguments)

    def flat(leaves: list[Any]) -> Any:
        return function(*jax.tree.unflatten(structure, leaves))

    return jax.make_jaxpr(flat)(leaves), leaves


def _evaluated(function: Callable[..., Any], path: Path, arguments: Any) -> Iterator[Evaluated]:
    """Evaluates a function, or an iteration of a loop in it, operation by operation."""
    evaluated = _evaluate(*to_jaxpr(function, arguments), "")
    for number, iteration in path:
        scope, loop, inputs, _ = _nth(evaluated, number)
        body, values, _ = _nth(_iterations(loop, inputs), iteration)
        evaluated = _evaluate(body, values, scope)
    return evaluated


def _iterations(
    loop: Any, inputs: list[Any]
) -> Iterator[tuple[core.ClosedJaxpr, list[Any], list[Any]]]:
    """Yields the jaxpr, the arguments and the results of each iteration of a loop or branch."""
    params = loop.params
    if loop.primitive.name == "cond":
        branches = params["branches"]
        body = branches[min(max(int(inputs[0]), 0), len(branches) - 1)]
        yield body, inputs[1:], core.jaxpr_as_fun(body)(*inputs[1:])
    elif loop.primitive.name == "while":
        ends = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        tested, fixed, carry = inputs[: ends[0]], inputs[ends[0] : ends[1]], inputs[ends[1] :]
        body, test = params["body_jaxpr"], jax.jit(core.jaxpr_as_fun(params["cond_jaxpr"]))
        run = jax.jit(core.jaxpr_as_fun(body))
        while bool(test(*tested, *carry)[0]):
            values, carry = [*fixed, *carry], run(*fixed, *carry)
            yield body, values, carry
    else:
        num_fixed, num_carried = scan_sizes(params)
        body, end = params["jaxpr"], num_fixed + num_carried
        fixed, carry, rows = inputs[:num_fixed], inputs[num_fixed:end], inputs[end:]
        run = jax.jit(core.jaxpr_as_fun(body))
        order = range(params["length"])
        for number in reversed(order) if params["reverse"] else order:
            values = [*fixed, *carry, *(row[number] for row in rows)]
            results = run(*values)
            carry = results[:num_carried]
            yield body, values, results


def scan_sizes(parameters: dict[str, Any]) -> tuple[int, int]:
    """Returns the numbers of constants and of carried arrays of a scan, which come first."""
    if "ft_in" in parameters:  # from jax 0.12 on
        constants, carried, _ = parameters["ft_in"].unpack()
        return len(constants), len(carried)
    return parameters["num_consts"], parameters["num_carry"]


def _evaluate(
    program: core.ClosedJaxpr, arguments: list[Any], scope: str
) -> Generator[Evaluated, None, list[Any]]:
    """Evaluates a jaxpr as `_evaluated` does; returns its results."""
    jaxpr = program.jaxpr
    values = dict(zip(jaxpr.constvars, program.consts, strict=True))
    values |= zip(jaxpr.invars, arguments, strict=True)
    last = {a: n for n, e in enumerate(jaxpr.eqns) for a in e.invars if _is_variable(a)}
    last |= dict.fromkeys(filter(_is_variable, jaxpr.outvars), len(jaxpr.eqns))
    for number, equation in enumerate(jaxpr.eqns):
        name = "/".join(filter(None, (scope, str(equation.source_info.name_stack))))
        inputs = [values[a] if _is_variable(a) else a.val for a in equation.invars]
        inner = equation.params.get(CALLS.get(equation.primitive.name, ""))
        if inner is None:
            variables = [a for a in equation.invars if _is_variable(a)]
            alone = jaxpr.replace(
                constvars=[], invars=variables, outvars=equation.outvars, eqns=[equation]
            )
            results = core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*map(values.get, variables))
            yield name, equation, inputs, results
        else:
            closed = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())
            results = yield from _evaluate(closed, inputs, name)
        values |= zip(equation.outvars, results, strict=True)
        for atom in (*equation.invars, *equation.outvars):
            if _is_variable(atom) and last.get(atom, 0) <= number:
                values.pop(atom, None)  # frees its memory
    return [values[a] if _is_variable(a) else a.val for a in jaxpr.outvars]


def _is_variable(atom: Any) -> bool:
    return not isinstance(atom, core.Literal)


def to_numpy(array: Any) -> np.ndarray:
    """Returns an array as one of NumPy; of an array of keys, its numbers."""
    is_key = hasattr(array, "dtype") and jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(array) if is_key else array)


def digest(array: np.ndarray) -> str:
    """Returns a digest of type, shape and bits of an array."""
    about = f"{array.dtype}{array.shape}".encode()
    return hashlib.sha256(about + array.tobytes()).hexdigest()[:16]
