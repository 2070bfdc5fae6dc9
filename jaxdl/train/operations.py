"""Operations of a function, one by one: which they are, and what each of them computes.

Calls within the function are looked into; loops and branches inside XLA are one operation each.
This module imports JAX alone, so that `jaxdl diff` can look into another version of the project.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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
Visit = Callable[[str, Any, list[Any]], None]


class Operation(NamedTuple):
    """An operation of a function.

    Attributes:
      layer: path of the layer.
      primitive: name of JAX's primitive.
      phase: forward, backward, or outside of the gradient: before or after.
      type: type and shape of its first result, such as `float32[64,10]`.
      digests: hashes of the bits of its results, separated by spaces.
    """

    layer: str
    primitive: str
    phase: str
    type: str
    digests: str

    def __str__(self) -> str:
        return f"{self.layer} ({self.primitive}, {self.phase}) {self.type}"


def layer_of(scope: str) -> str:
    """Returns the path of layers in a name stack."""
    return WRAPPERS.sub("", scope).strip("/") or "outside every layer"


def operations(function: Callable[..., Any], *arguments: Any) -> list[Operation]:
    """Lists the operations of a function in order, with a hash of what each computes.

    Args:
      function: function from arrays to a pytree of arrays.
      *arguments: pytrees of arrays.
    """
    program, leaves = _program(function, arguments)
    found: list[tuple[str, Any]] = []

    def hashes(leaves: list[Any]) -> list[list[jax.Array]]:
        found.clear()
        digests: list[list[jax.Array]] = []

        def visit(scope: str, equation: Any, results: list[Any]) -> None:
            found.append((scope, equation))
            digests.append([hash_of_bits(x) for x in results])

        _evaluate(program, leaves, "", visit)
        return digests

    digests = jax.device_get(jax.jit(hashes)(leaves))
    listed = []
    has_gradient = False
    for (scope, equation), results in zip(found, digests, strict=True):
        is_backward = "transpose(" in scope
        has_gradient |= is_backward
        inside = "backward" if is_backward else "forward" if "jvp(" in scope else ""
        phase = inside or ("after the gradient" if has_gradient else "before the gradient")
        type_ = equation.outvars[0].aval.str_short() if equation.outvars else "nothing"
        name = equation.primitive.name
        texts = " ".join(f"{first:08x}{second:08x}" for first, second in results)
        listed.append(Operation(layer_of(scope), name, phase, type_, texts))
    return listed


def result(function: Callable[..., Any], number: int, *arguments: Any) -> Any:
    """Computes the first result of one operation of a function.

    Args:
      function: function from arrays to a pytree of arrays.
      number: position of the operation in `operations`.
      *arguments: pytrees of arrays.
    """
    program, leaves = _program(function, arguments)

    def wanted(leaves: list[Any]) -> Any:
        results: list[Any] = []
        _evaluate(program, leaves, "", lambda *v: results.append(v[2][0]))
        return _data(results[number])

    return jax.device_get(jax.jit(wanted)(leaves))


def _program(function: Callable[..., Any], arguments: Any) -> tuple[core.ClosedJaxpr, list[Any]]:
    """Returns the jaxpr of a function of the leaves of its arguments, and these leaves."""
    leaves, structure = jax.tree.flatten(arguments)

    def flat(leaves: list[Any]) -> Any:
        return function(*jax.tree.unflatten(structure, leaves))

    return jax.make_jaxpr(flat)(leaves), leaves


def _evaluate(program: core.ClosedJaxpr, arguments: list[Any], scope: str, visit: Visit) -> None:
    """Evaluates a jaxpr, and calls `visit` with the results of each operation."""
    equations = program.jaxpr.eqns
    atoms = [atom for e in equations for atom in (*e.invars, *e.outvars)]
    variables = list(dict.fromkeys(a for a in atoms if not isinstance(a, core.Literal)))
    every = program.replace(jaxpr=program.jaxpr.replace(outvars=variables))
    values = dict(zip(variables, core.jaxpr_as_fun(every)(*arguments), strict=True))
    for equation in equations:
        name = "/".join(filter(None, (scope, str(equation.source_info.name_stack))))
        inner = equation.params.get(CALLS.get(equation.primitive.name, ""))
        if inner is None:
            visit(name, equation, [values[variable] for variable in equation.outvars])
            continue
        closed = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())
        inputs = [a.val if isinstance(a, core.Literal) else values[a] for a in equation.invars]
        _evaluate(closed, inputs, name, visit)


def _data(array: Any) -> jax.Array:
    """Returns an array; of an array of keys, its numbers."""
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(array) if is_key else jnp.asarray(array)


def hash_of_bits(array: Any) -> jax.Array:
    """Returns a hash of the bits of an array, uint32 [2].

    An odd factor for each position makes sure that any single bit changes the first sum.
    """
    array = _data(array)
    if array.dtype == bool:
        array = array.astype(jnp.uint8)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        array = jnp.stack([array.real, array.imag])
    width = jnp.uint8 if array.dtype.itemsize == 1 else jnp.uint16
    bits = jnp.uint32 if array.dtype.itemsize >= 4 else width
    words = jax.lax.bitcast_convert_type(array, bits).astype(jnp.uint32).ravel()
    position = jnp.arange(words.size, dtype=jnp.uint32)
    factor = position * jnp.uint32(2654435761) * 2 + 1
    mixed = (words ^ (words >> 15)) * jnp.uint32(2246822519) ^ position
    sums = (words * factor).sum(dtype=jnp.uint32), (mixed * factor).sum(dtype=jnp.uint32)
    return jnp.stack(sums)
