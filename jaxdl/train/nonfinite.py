"""Steps whose numbers are not finite: noticed inside the compiled step, and traced to a layer.

A step is bad where one of its metrics is not finite. The norm of the gradient is among the metrics
of `supervised`, so one bad gradient makes a bad step; it costs nothing, for the norm is there
already, and a choice between new and old values fuses with the update that made the new ones.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxdl import tree
from jaxdl.console import say
from jaxdl.errors import TrainingError
from jaxdl.metrics import Metrics
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.task import Batch, State, Task

MOST_SKIPPED = 100  # steps in a row that --on_nonfinite=skip may skip
WRAPPERS = re.compile(r"\b(jvp|transpose|vmap|checkpoint|rematted_computation)\(|\)")


def all_finite(metrics: Metrics) -> jax.Array:
    """Returns a bool scalar: every total and count is finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(metrics)]).all()


def choose(good: jax.Array, new: Any, old: Any) -> Any:
    """The pytree `new` where `good` is true, else `old`, in which nothing was changed."""
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)


def skip_over(good: jax.Array, new: Any, old: Any) -> Any:
    """Like `choose`, for a state; but its `step` moves on, so that another batch comes next."""
    return jax.tree_util.tree_map_with_path(
        lambda path, a, b: a if tree.field(path) == "step" else jnp.where(good, a, b), new, old
    )


def locate_nonfinite(function: Callable[..., Any], *arguments: Any) -> str | None:
    """Finds the first operation whose result made one of a program's results not finite.

    Runs the program once more, with every intermediate value looked at. A value that is not finite
    and is masked away later leads to no result, and is not blamed.

    Args:
      function: arrays -> pytree of arrays.
      *arguments: pytrees; where one of them is itself not finite, it is named by its path.

    Returns:
      Such as `VGG/Conv3x3_1 (conv_general_dilated, forward)`; None where all results are finite.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(arguments)
    program = jax.make_jaxpr(function)(*arguments)
    inputs = [f"the input {jax.tree_util.keystr(path)}" for path, _ in leaves]
    return _search(program, [leaf for _, leaf in leaves], inputs, "")


def check_skipped(in_a_row: int, step: int) -> None:
    """Ends a run that skips one step after the other.

    Raises:
      TrainingError: it has skipped too many.
    """
    if in_a_row >= MOST_SKIPPED:
        raise TrainingError(
            f"{in_a_row} steps in a row up to {step} were not finite: lower --learning_rate, or "
            "start again from an earlier state"
        )


def abort(
    task: Task, state: State, batch: Batch, step: int, named: str, keep: Callable[[Any], None]
) -> TrainingError:
    """Keeps what makes a bad step happen again; returns how the run ends.

    Args:
      task: of the run.
      state: before the step.
      batch: of the step.
      step: its number.
      named: the run folder.
      keep: writes the pair of state and batch.
    """
    say(f"step {step} is not finite: looking for the place where that began")
    place = locate_nonfinite(lambda *given: task.step(*given)[1], state, batch)
    keep((state, batch))
    return TrainingError(
        f"step {step} is not finite, from {place or 'an operation that is fused'} on; "
        f"`jaxdl replay {named}` makes it again: lower --learning_rate, or give "
        "--on_nonfinite=skip (with --resume=force to go on from here)"
    )


def keep(folder: Path, record: dict[str, Any], log: str, pair: Any) -> None:
    """Writes state and batch of a bad step into `nonfinite/` of a run folder."""
    kept = Checkpoints(folder / "nonfinite")
    kept.save(record["step"], pair, record, log, ())
    kept.close()


def _search(
    program: core.ClosedJaxpr, values: list[jax.Array], inputs: list[str], scope: str
) -> str | None:
    """`locate_nonfinite` in a program whose equations stand in a scope of that name."""
    jaxpr = program.jaxpr
    made_by = {variable: e for e in jaxpr.eqns for variable in e.outvars}
    names = dict(zip(jaxpr.invars, inputs, strict=True))
    seen = [variable for variable in (*names, *made_by) if _is_inexact(variable)]

    @jax.jit
    def look(values: list[jax.Array]) -> list[jax.Array]:
        return [~jnp.isfinite(value).all() for value in _values(program, seen, values)]

    flags = jax.device_get(look(values))
    bad = {variable for variable, flag in zip(seen, flags, strict=True) if flag}
    # From the results that are bad, back along values that are: the earliest is where it began.
    chain: set[Any] = set()
    waiting = _variables(jaxpr.outvars) & bad
    while waiting:
        variable = waiting.pop()
        chain.add(variable)
        equation = made_by.get(variable)
        if equation is not None:
            waiting |= (_variables(equation.invars) & bad) - chain
    first = next((variable for variable in seen if variable in chain), None)
    if first is None:
        return None
    if first in names:
        return names[first]
    equation = made_by[first]
    name = "/".join(filter(None, (scope, str(equation.source_info.name_stack))))
    inner = next((v for v in equation.params.values() if isinstance(v, core.ClosedJaxpr)), None)
    if inner is not None and len(inner.jaxpr.invars) == len(equation.invars):
        # It calls another program: the place is somewhere inside.
        given = iter(jax.jit(lambda v: _values(program, _ordered(equation.invars), v))(values))
        arguments = [a.val if isinstance(a, core.Literal) else next(given) for a in equation.invars]
        unknown = [f"{_where(name)} (an operand)"] * len(arguments)
        return _search(inner, arguments, unknown, name) or _describe(name, equation)
    return _describe(name, equation)


def _values(program: core.ClosedJaxpr, variables: list[Any], inputs: list[Any]) -> list[jax.Array]:
    """The values of some variables of a program, run on these inputs."""
    other = program.replace(jaxpr=program.jaxpr.replace(outvars=variables))
    return list(core.jaxpr_as_fun(other)(*inputs))


def _is_literal(atom: Any) -> bool:
    return isinstance(atom, core.Literal)


def _ordered(atoms: Any) -> list[Any]:
    return [atom for atom in atoms if not _is_literal(atom)]


def _variables(atoms: Any) -> set[Any]:
    return set(_ordered(atoms))


def _is_inexact(variable: Any) -> bool:
    return jnp.issubdtype(getattr(variable.aval, "dtype", int), jnp.inexact)


def _where(scope: str) -> str:
    return WRAPPERS.sub("", scope).strip("/") or "outside every layer"


def _describe(scope: str, equation: Any) -> str:
    way = "backward" if "transpose(" in scope else "forward"
    return f"{_where(scope)} ({equation.primitive.name}, {way})"
