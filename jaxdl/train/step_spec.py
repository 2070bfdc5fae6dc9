"""Constants of a compiled step, and the task that they describe, as functions of its operands."""

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

KEPT = 8  # programs of a process that another run of the same constants takes up
Operands = dict[str, Any]  # numbers of a config by field: arguments of every compiled function


class StepSpec(NamedTuple):
    """The constants of a program. Equal ones share it."""

    build: Build
    config: RunConfig  # its operands do not count
    data: DataSpec
    mesh: Mesh
    fsdp: bool
    columns: tuple[str, ...]  # of the training split; with `length`, batches are of like length


def operands(config: RunConfig, mesh: Mesh) -> Operands:
    """The numbers of a config that its program takes as arguments, on the devices.

    They stay weakly typed, as Python's numbers: bfloat16 times one of them is bfloat16.
    """
    whole = sharding.replicated(mesh)
    numbers = hyperparameters.operands(config)
    if jax.process_count() > 1:
        return {n: jax.jit(lambda x: x, out_shardings=whole)(v) for n, v in numbers.items()}
    return {name: jax.device_put(value, whole) for name, value in numbers.items()}


def step_spec(build: Build, config: RunConfig, data: batches.Dataset, mesh: Mesh) -> StepSpec:
    """The constants of a run's program."""
    constants = hyperparameters.without_operands(config)
    columns = tuple(data.train)
    return StepSpec(build, constants, data.spec, mesh, config.fsdp, columns)


def build_task(spec: StepSpec, numbers: Operands) -> Task:
    """The task of a program with these numbers, which may be traced."""
    return spec.build(hyperparameters.with_operands(spec.config, numbers), spec.data)


def state_shapes(spec: StepSpec) -> tuple[Operands, State]:
    """Shapes of a program's operands and of the task's state, whole on each device.

    Raises:
      UserError: the model cannot be built.
    """
    numbers, key, _ = argument_shapes(spec)
    state = jax.eval_shape(task_functions(spec).init, numbers, key)
    return numbers, sharding.placed(state, sharding.replicated(spec.mesh))


# The functions of a program, given its constants.


class TaskFunctions(NamedTuple):
    """A task's functions of its operands too. Each is traced once for all of the programs."""

    init: Callable[[Operands, Key], State]
    step: Callable[[Operands, State, Batch], tuple[State, Metrics]]
    evaluate: Callable[[Operands, State, Batch], Metrics]


@functools.lru_cache(maxsize=KEPT)
def task_functions(spec: StepSpec) -> TaskFunctions:
    """Functions of the task of a program, to be mapped over operands and keys, too."""

    def of_operands(name: str) -> Any:
        def function(numbers: Operands, *given: Any) -> Any:
            with _naming_constants(spec, name, given):
                return getattr(build_task(spec, numbers), name)(*given)

        return jax.jit(function, inline=True)

    return TaskFunctions(*map(of_operands, TaskFunctions._fields))


def argument_shapes(spec: StepSpec) -> tuple[Operands, Any, Any]:
    """Shapes of a program's operands, of a key and of a batch."""
    whole, shards = sharding.replicated(spec.mesh), sharding.sharded(spec.mesh)
    numbers = {name: _like(name) for name in hyperparameters.operands(spec.config)}
    example = spec.data.example(spec.config.batch_size)
    example = {name: example[name] for name in (*spec.columns, "index", "mask")}
    key = jax.eval_shape(lambda: jax.random.key(0))
    return sharding.placed(numbers, whole), key, sharding.placed(example, shards)


@contextlib.contextmanager
def _naming_constants(spec: StepSpec, function: str, given: tuple[Any, ...]) -> Iterator[None]:
    """Names the flag whose value a task asks for while a function of it is traced.

    Raises:
      UserError: there is one.
    """
    try:
        yield
    except (TypeError, ValueError) as error:  # JAX's own, and those of what Python makes of it
        numbers: Operands = {
            n: 1 if n == "seed" else 1.0 for n in hyperparameters.operands(spec.config)
        }

        def fails(traced: dict[str, Any]) -> bool:
            def call(traced: dict[str, Any]) -> Any:
                return getattr(build_task(spec, numbers | traced), function)(*given)

            try:
                jax.eval_shape(call, traced)
            except (TypeError, ValueError):
                return True
            return False

        if not fails({}):
            for name, one in numbers.items():
                if fails({name: one}):
                    raise UserError(
                        f"the task needs the value of --{name} while its {function} is compiled: "
                        "use jax.numpy on it, layers that do (jaxdl.nn.dropout), or declare "
                        "the field as flag(..., static=True)"
                    ) from error
        raise


def _like(name: str) -> jax.ShapeDtypeStruct:
    """Shape of an operand: a weakly typed scalar, as Python's numbers are."""
    dtype = jnp.int32 if name == "seed" else jnp.float32
    return jax.ShapeDtypeStruct((), dtype, weak_type=True)
