"""Steps that are not finite: detection inside the compiled step, and the layer at fault.

A step is bad if one of its metrics is not finite. The gradient norm is among the metrics of
`supervised`, so one bad gradient makes a bad step. The check costs nothing: the norm is computed
anyway, and the choice between new and old values fuses with the update that computes the new ones.

`train_step` uses `all_finite`, `choose` and `skip_over` inside the step. `trainer` uses the other
functions, on the host. `rewind` has the detours of --on_nonfinite=rewind.
"""

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
from jaxdl.train.operations import layer_of

MOST_SKIPPED = 100  # steps in a row that --on_nonfinite=skip may skip


def all_finite(metrics: Metrics) -> jax.Array:
    """Returns a bool scalar, True if every total and count is finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(metrics)]).all()


def choose(good: jax.Array, new: Any, old: Any) -> Any:
    """Selects the pytree `new` if the bool scalar `good` is True, else `old`."""
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)


def skip_over(good: jax.Array, new: Any, old: Any) -> Any:
    """Like `choose` for a state, except that `step` is always new: the next batch differs."""
    return jax.tree_util.tree_map_with_path(
        lambda path, a, b: a if tree.field(path) == "step" else jnp.where(good, a, b), new, old
    )


def locate_nonfinite(function: Callable[..., Any], *arguments: Any) -> str | None:
    """Finds the first operation that made a result of a function not finite.

    Runs the function once more and checks every intermediate value. A value that is not finite but
    is masked out later reaches no result, and is not reported.

    Args:
      function: function from arrays to a pytree of arrays.
      *arguments: pytrees of arrays. If one of them is not finite itself, its path is reported.

    Returns:
      The layer and the operation, such as `VGG/Conv3x3_1 (conv_general_dilated, forward)`. None if
      all results are finite.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(arguments)
    program = jax.make_jaxpr(function)(*arguments)
    inputs = [f"the input {jax.tree_util.keystr(path)}" for path, _ in leaves]
    return _search(program, [leaf for _, leaf in leaves], inputs, "")


def check_skipped(in_a_row: int, step: int) -> None:
    """Checks that a run does not skip too many steps in a row.

    Args:
      in_a_row: steps skipped since the last good one.
      step: the current step.

    Raises:
      TrainingError: it has skipped `MOST_SKIPPED` steps or more.
    """
    if in_a_row >= MOST_SKIPPED:
        raise TrainingError(
            f"{in_a_row} steps in a row up to {step} were not finite: lower --learning_rate, or "
            "start again from an earlier state"
        )


def abort(
    task: Task, state: State, batch: Batch, step: int, run_folder: str, keep: Callable[[Any], None]
) -> TrainingError:
    """Saves the state and batch of a bad step for `jaxdl replay`, and locates its cause.

    Args:
      task: the run's task.
      state: the state before the step.
      batch: the batch of the step.
      step: the bad step.
      run_folder: path of the run folder, for the message.
      keep: function that saves the pair of state and batch.

    Returns:
      The error with which the run ends.
    """
    say(f"step {step} is not finite: looking for the operation that caused it")
    place = locate_nonfinite(lambda *arguments: task.step(*arguments)[1], state, batch)
    keep((state, batch))
    return TrainingError(
        f"step {step} is not finite, from {place or 'an operation that is fused'} on; "
        f"`jaxdl replay {run_folder}` repeats it: {_advice(step, place)}, or give "
        "--on_nonfinite=skip (with --resume=force to go on from here)"
    )


def _advice(step: int, place: str | None) -> str:
    """Way out for the user, by the place and the step at which the first value was not finite."""
    if place and place.startswith("the input"):
        return "the data have it already, so look at them"
    if step == 0:
        return "look at the data (nan, or a label that is not a class), or lower --learning_rate"
    return "lower --learning_rate"


def save_bad_step(folder: Path, record: dict[str, Any], log: str, pair: Any) -> None:
    """Saves a bad step as a checkpoint in `nonfinite/` of a run folder.

    Args:
      folder: the run folder.
      record: the record of a checkpoint.
      log: the log so far.
      pair: the state before the step, and its batch.
    """
    checkpoints = Checkpoints(folder / "nonfinite")
    checkpoints.save(record["step"], pair, record, log, ())
    checkpoints.close()


def _search(
    program: core.ClosedJaxpr, values: list[jax.Array], inputs: list[str], scope: str
) -> str | None:
    """Implements `locate_nonfinite` for a jaxpr.

    Args:
      program: the jaxpr.
      values: values of its inputs.
      inputs: descriptions of its inputs.
      scope: name stack of the equation that calls it.
    """
    jaxpr = program.jaxpr
    producers = {variable: e for e in jaxpr.eqns for variable in e.outvars}
    descriptions = dict(zip(jaxpr.invars, inputs, strict=True))
    # In order of execution, so that the first one that is blamed is the earliest.
    variables = [variable for variable in (*descriptions, *producers) if _is_inexact(variable)]

    @jax.jit
    def find_bad(values: list[jax.Array]) -> list[jax.Array]:
        return [~jnp.isfinite(value).all() for value in _values(program, variables, values)]

    flags = jax.device_get(find_bad(values))
    bad = {variable for variable, flag in zip(variables, flags, strict=True) if flag}
    # From the bad results back along bad values: the earliest value reached is the cause.
    reached: set[Any] = set()
    pending = _variables(jaxpr.outvars) & bad
    while pending:
        variable = pending.pop()
        reached.add(variable)
        equation = producers.get(variable)
        if equation is not None:
            pending |= (_variables(equation.invars) & bad) - reached
    cause = next((variable for variable in variables if variable in reached), None)
    if cause is None:
        return None
    if cause in descriptions:
        return descriptions[cause]
    equation = producers[cause]
    name = "/".join(filter(None, (scope, str(equation.source_info.name_stack))))
    inner = next((v for v in equation.params.values() if isinstance(v, core.ClosedJaxpr)), None)
    if inner is not None and len(inner.jaxpr.invars) == len(equation.invars):
        # The equation calls another jaxpr: the cause is inside it.
        operands = iter(jax.jit(lambda v: _values(program, _ordered(equation.invars), v))(values))
        arguments = [
            atom.val if isinstance(atom, core.Literal) else next(operands)
            for atom in equation.invars
        ]
        operand_names = [f"{layer_of(name)} (an operand)"] * len(arguments)
        return _search(inner, arguments, operand_names, name) or _describe(name, equation)
    return _describe(name, equation)


def _values(program: core.ClosedJaxpr, variables: list[Any], inputs: list[Any]) -> list[jax.Array]:
    """Returns the values of some variables of a jaxpr for the given inputs."""
    with_outputs = program.replace(jaxpr=program.jaxpr.replace(outvars=variables))
    return list(core.jaxpr_as_fun(with_outputs)(*inputs))


def _ordered(atoms: Any) -> list[Any]:
    """Returns the variables among atoms, which are variables or literals."""
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]


def _variables(atoms: Any) -> set[Any]:
    return set(_ordered(atoms))


def _is_inexact(variable: Any) -> bool:
    return jnp.issubdtype(getattr(variable.aval, "dtype", int), jnp.inexact)


def _describe(scope: str, equation: Any) -> str:
    """Describes an equation by its layer, its primitive and its pass."""
    direction = "backward" if "transpose(" in scope else "forward"
    return f"{layer_of(scope)} ({equation.primitive.name}, {direction})"
