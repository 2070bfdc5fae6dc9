"""Guided backpropagation (Springenberg et al., 2015): ReLUs pass positive gradients only."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxdl.errors import UserError


@jax.custom_vjp
def guided_relu(x: jax.Array) -> jax.Array:
    """ReLU whose gradient is that of `nn.relu`, without the entries that are negative."""
    return jnp.maximum(x, 0)


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.maximum(x, 0), x > 0


def _backward(positive: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(positive, jnp.maximum(gradient, 0), 0),)


guided_relu.defvjp(_forward, _backward)


def guided(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """A function with `guided_relu` in place of each `nn.relu` outside of loops.

    Args:
      function: function of one array, such as a score.

    Raises:
      UserError: when it is called, if it has no ReLU.
    """

    def call(x: jax.Array) -> jax.Array:
        closed = jax.make_jaxpr(function)(x)
        if not _has_relu(closed.jaxpr):
            raise UserError("guided backpropagation is for models with ReLU")
        (y,) = _evaluate(closed.jaxpr, closed.consts, [x])
        return y

    return call


def _is_relu(equation: Any) -> bool:
    """Returns True for a call of `nn.relu`, which is a function with a derivative of its own."""
    if equation.primitive.name != "custom_jvp_call":
        return False
    return any(e.params.get("name") == "relu" for e in equation.params["call_jaxpr"].jaxpr.eqns)


def _inner(equation: Any) -> list[Any]:
    """Jaxprs of a nested `jit` or of the branches of a `cond`; none of other equations."""
    if equation.primitive.name in ("jit", "pjit"):
        return [equation.params["jaxpr"]]
    return list(equation.params["branches"]) if equation.primitive.name == "cond" else []


def _has_relu(jaxpr: Any) -> bool:
    return any(_is_relu(e) or any(_has_relu(i.jaxpr) for i in _inner(e)) for e in jaxpr.eqns)


def _nested(inner: list[Any], operands: list[Any]) -> list[Any]:
    """Evaluates a nested `jit`, or the branches of a `cond` of the first operand."""
    if len(inner) == 1:
        return _evaluate(inner[0].jaxpr, inner[0].consts, operands)

    def branch(closed: Any) -> Callable[..., list[Any]]:
        return lambda *operands: _evaluate(closed.jaxpr, closed.consts, list(operands))

    index, *operands = operands
    results: list[Any] = jax.lax.switch(index, [branch(closed) for closed in inner], *operands)
    return results


def _evaluate(jaxpr: Any, consts: list[Any], args: list[Any]) -> list[Any]:
    """Evaluates a jaxpr with other ReLUs."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in jaxpr.eqns:
        operands = [read(variable) for variable in equation.invars]
        inner = _inner(equation)
        if _is_relu(equation):
            results = [guided_relu(*operands)]
        elif any(_has_relu(closed.jaxpr) for closed in inner):
            results = _nested(inner, operands)
        else:
            params = equation.primitive.get_bind_params(equation.params)
            results = equation.primitive.bind(*operands, **params)
            results = results if equation.primitive.multiple_results else [results]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]
