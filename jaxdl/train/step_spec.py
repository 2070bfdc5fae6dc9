"""Constants of a compiled step, and the task's functions as functions of its operands.

A `StepSpec` has everything that is a constant of the compiled program. The operands, which are the
seed, most floats of a config, and statistics of data that are split by seed, are its arguments.
Runs that differ in operands alone share a program. `train_step` compiles the functions that are
built here, and `evaluate` uses their shapes.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxdl import hyperparameters
from jaxdl.config import RunConfig
from jaxdl.data import batches
from jaxdl.data.spec import DataSpec
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.task import Batch, Build, Key, Metrics, State, Task

MAX_CACHED_PROGRAMS = 8  # programs that a process keeps, for runs with equal constants
# Arguments of every compiled function: numbers of a config by field, and arrays of the description
# of the data by `DATA` and their name.
Operands = dict[str, Any]
DATA = "data."


class StepSpec(NamedTuple):
    """Constants of a compiled program. Runs with equal specs share the program.

    Attributes:
      build: function from (config, description of the data) to a task.
      config: the run's config, with every operand set to 1.
      data: description of the data, with every operand set to 1.
      mesh: the devices.
      fsdp: whether large parameters and their optimizer state are sharded over the `data` axis.
      columns: names of the arrays of the training split. If `length` is among them, the batches
        have examples of similar length.
    """

    build: Build
    config: RunConfig
    data: DataSpec
    mesh: Mesh
    fsdp: bool
    columns: tuple[str, ...]


def step_spec(build: Build, config: RunConfig, data: batches.Dataset, mesh: Mesh) -> StepSpec:
    """Returns the constants of a run's compiled program."""
    constants = hyperparameters.without_operands(config)
    columns = tuple(data.train)
    return StepSpec(build, constants, data.spec.without_operands(), mesh, config.fsdp, columns)


def operands(config: RunConfig, data: DataSpec) -> Operands:
    """Returns the operands of a run, as Python numbers and NumPy arrays."""
    arrays = {DATA + name: value for name, value in data.operand_values().items()}
    return hyperparameters.operands(config) | arrays


def device_operands(config: RunConfig, data: DataSpec, mesh: Mesh) -> Operands:
    """Returns the operands of a run, replicated on the devices.

    Those of a config stay weakly typed, as Python's numbers are: bfloat16 times one is bfloat16.
    """
    replicated = sharding.replicated(mesh)
    numbers = operands(config, data)
    if jax.process_count() > 1:
        return {n: jax.jit(lambda x: x, out_shardings=replicated)(v) for n, v in numbers.items()}
    return {name: jax.device_put(value, replicated) for name, value in numbers.items()}


def build_task(spec: StepSpec, numbers: Operands) -> Task:
    """Builds the task of a program with the given operands, which may be tracers."""
    arrays = {name: numbers[DATA + name] for name in spec.data.operands}
    config = hyperparameters.with_operands(spec.config, numbers)
    return spec.build(config, spec.data.with_operands(arrays) if arrays else spec.data)


class TaskFunctions(NamedTuple):
    """A task's functions, with the operands as their first argument.

    Each is traced once, for all programs that call it.
    """

    init: Callable[[Operands, Key], State]
    step: Callable[[Operands, State, Batch], tuple[State, Metrics]]
    evaluate: Callable[[Operands, State, Batch], Metrics]


@functools.lru_cache(maxsize=MAX_CACHED_PROGRAMS)
def task_functions(spec: StepSpec) -> TaskFunctions:
    """Returns the functions of a program's task; `jax.vmap` may map them over operands and keys."""

    def with_operands(name: str) -> Any:
        def function(numbers: Operands, *arguments: Any) -> Any:
            with _explain_tracer_error(spec, name, arguments):
                return getattr(build_task(spec, numbers), name)(*arguments)

        return jax.jit(function, inline=True)

    return TaskFunctions(*map(with_operands, TaskFunctions._fields))


def argument_shapes(spec: StepSpec) -> tuple[Operands, Any, Any]:
    """Returns the shapes and shardings of a program's operands, of a key and of a batch."""
    numbers: Operands = {
        name: _operand_shape(name) for name in hyperparameters.operands(spec.config)
    }
    for name, value in spec.data.operand_values().items():
        numbers[DATA + name] = jax.ShapeDtypeStruct(value.shape, value.dtype)
    example = spec.data.example(spec.config.batch_size)
    batch = {name: example[name] for name in (*spec.columns, "index", "mask")}
    key = jax.eval_shape(lambda: jax.random.key(0))
    replicated, sharded = sharding.replicated(spec.mesh), sharding.sharded(spec.mesh)
    return sharding.with_sharding(numbers, replicated), key, sharding.with_sharding(batch, sharded)


@functools.lru_cache(maxsize=MAX_CACHED_PROGRAMS)
def abstract_inputs(spec: StepSpec) -> tuple[Operands, State]:
    """Returns the shapes of a program's operands and of the task's state, both replicated.

    Raises:
      UserError: the model cannot be built.
    """
    numbers, key, _ = argument_shapes(spec)
    state = jax.eval_shape(task_functions(spec).init, numbers, key)
    return numbers, sharding.with_sharding(state, sharding.replicated(spec.mesh))


@contextlib.contextmanager
def _explain_tracer_error(
    spec: StepSpec, function: str, arguments: tuple[Any, ...]
) -> Iterator[None]:
    """Turns the error of a task that needs the value of an operand into one that names its flag.

    JAX's error does not say which flag the tracer came from. So the function is traced again with
    Python numbers, then with one operand after the other as a tracer, to find the flag that fails.

    Args:
      spec: the constants of the program.
      function: name of the task's function that is being traced.
      arguments: its arguments after the operands.

    Raises:
      UserError: a single operand is the cause; the error names its flag.
    """
    try:
        yield
    except KeyError as error:
        names = [name for batch in arguments[1:] for name in batch]
        if names and error.args and isinstance(error.args[0], str) and error.args[0] not in names:
            raise UserError(
                f"the task's {function} reads {error.args[0]!r}: a batch has {', '.join(names)}, "
                "so name one of these"
            ) from error
        raise
    except (TypeError, ValueError) as error:  # JAX's own, and those that Python raises on a tracer
        numbers = operands(spec.config, spec.data)

        def fails(traced: Operands) -> bool:
            def call(traced: Operands) -> Any:
                return getattr(build_task(spec, numbers | traced), function)(*arguments)

            try:
                jax.eval_shape(call, traced)
            except (TypeError, ValueError):
                return True
            return False

        if not fails({}):
            for name, number in numbers.items():
                if fails({name: number}):
                    raise UserError(_needs_value(name, function)) from error
        raise


def _needs_value(name: str, function: str) -> str:
    """Error text for a task that needs the value of an operand while a function is compiled."""
    if name.startswith(DATA):
        name = name.removeprefix(DATA)
        return (
            f"the task needs the value of the data's constant {name!r} while its {function} is "
            f"compiled: use jax.numpy on it, or leave {name!r} out of the operands of the data"
        )
    return (
        f"the task needs the value of --{name} while its {function} is compiled: use jax.numpy on "
        "it, layers that do (jaxdl.nn.dropout), or declare the field as flag(..., static=True)"
    )


def _operand_shape(name: str) -> jax.ShapeDtypeStruct:
    """Returns the shape of an operand: a weakly typed scalar, as Python's numbers are."""
    dtype = jnp.int32 if name == "seed" else jnp.float32
    return jax.ShapeDtypeStruct((), dtype, weak_type=True)
