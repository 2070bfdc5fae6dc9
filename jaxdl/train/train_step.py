"""The compiled functions of a run: a task's own, and what carries a state through its steps.

A program belongs to a task's constants: every value of a hyperparameter is an argument of it, so a
sweep compiles once, and a start of another learning rate takes the program from JAX's cache.
"""

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import metrics, tree
from jaxdl.data import batches
from jaxdl.distributed import sharding
from jaxdl.task import Batch, Key, Metrics, State
from jaxdl.train import flops, nonfinite
from jaxdl.train.step_spec import (
    KEPT,
    Operands,
    StepSpec,
    argument_shapes,
    state_shapes,
    task_functions,
)


class LoopState(NamedTuple):
    """Carry of the loop over steps, and the content of checkpoints."""

    state: State
    metrics: Metrics  # since the last line of the log
    bad: jax.Array  # int32: the step that was not finite, or -1
    skipped: jax.Array  # int32 [2]: steps skipped in a row, and since the last line of the log


class Epoch(NamedTuple):
    """A training split on the device, and the order of the epoch that the next step is in."""

    split: batches.Split
    key: Key  # of the orders of all epochs
    order: jax.Array  # int32 [N]


class Program(NamedTuple):
    """The compiled functions of a run. Those that take a loop state donate it.

    Each takes the operands first.
    """

    start: Callable[[Operands, Key], LoopState]  # the state of step 0
    like: LoopState  # its shapes and shardings, without any array
    advance: Callable[[Operands, LoopState, Epoch, int], tuple[LoopState, Epoch]]  # so many steps
    consume: Callable[[Operands, LoopState, Batch], LoopState]  # one step of a batch
    evaluate: Callable[[Operands, State, Batch], Metrics]
    order: Callable[[batches.Split, Key, int], jax.Array]  # of an epoch: int32 [N]
    batch: Callable[[Epoch, jax.Array], Batch]  # of a step of the epoch
    reset: Callable[[LoopState], LoopState]  # with metrics of zero
    leave_out: Callable[[LoopState], LoopState]  # one step that changes nothing but the step
    fold_key: Callable[[LoopState, int], LoopState]  # with another key, made from a number
    compiled: Callable[[Operands, LoopState, Epoch], jax.stages.Compiled]  # what `advance` calls
    flops: Counter[str]  # of one step, by scope
    branches: int  # forms of the step in the program, of which each step takes one
    loops: bool  # the steps of a call are a loop inside XLA


# Long: it names each function of a program once.
@functools.lru_cache(maxsize=KEPT)
def compile_step(spec: StepSpec) -> Program:
    """Jits a task's functions: the state donated, the batch sharded over the mesh.

    Steps are the iterations of a loop inside XLA, which draws the order of each epoch and gathers
    each batch. However many of them a call of `advance` makes, their bits are the same: all go
    through one compiled body. On a CPU it lets go of the loop where a task has convolutions that
    are not `jaxdl.nn.convolution`'s: their gradients are up to 60 times slower inside one.
    """
    config, mesh, data = spec.config, spec.mesh, spec.data
    per_epoch = config.steps_per_epoch(data.num_train)
    whole = sharding.replicated(mesh)
    functions = task_functions(spec)
    # As the compiled step will call it, mesh and all: so it is not traced again there.
    _, key, batch = argument_shapes(spec)
    numbers, state = state_shapes(spec)
    traced, (_, found) = jax.make_jaxpr(functions.step, return_shape=True)(numbers, state, batch)
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    loops = not (on_cpu and "conv_general_dilated" in flops.primitives(traced))

    def start(numbers: Operands, key: Key) -> LoopState:
        nothing = jnp.int32(-1), jnp.zeros(2, jnp.int32)
        return LoopState(functions.init(numbers, key), _zeros(found), *nothing)

    consume = functools.partial(_consume, config.on_nonfinite, functions.step)
    step = functools.partial(_step, spec, consume)

    def loop(numbers: Operands, now: Any, split: batches.Split, key: Key, steps: jax.Array) -> Any:
        return jax.lax.fori_loop(0, steps, lambda _, now: step(numbers, now, split, key), now)

    shapes = jax.eval_shape(start, numbers, key)
    where = sharding.of_state(mesh, shapes, spec.fsdp)
    jit = functools.partial(jax.jit, out_shardings=where)
    moving = functools.partial(jax.jit, donate_argnums=1, out_shardings=(where, whole))
    many, one = moving(loop), moving(step)

    def advance(
        numbers: Operands, carry: LoopState, epoch: Epoch, steps: int
    ) -> tuple[LoopState, Epoch]:
        now = carry, epoch.order
        if loops:
            now = many(numbers, now, epoch.split, epoch.key, np.int32(steps))
        else:
            for _ in range(steps):
                now = one(numbers, now, epoch.split, epoch.key)
        return now[0], epoch._replace(order=now[1])

    def compiled(numbers: Operands, carry: LoopState, epoch: Epoch) -> jax.stages.Compiled:
        given = numbers, (carry, epoch.order), epoch.split, epoch.key
        return (many.lower(*given, np.int32(1)) if loops else one.lower(*given)).compile()

    return Program(
        start=jit(start),
        like=sharding.placed(shapes, where),
        advance=advance,
        consume=jit(consume, donate_argnums=1),
        evaluate=compile_evaluate(spec),
        order=jax.jit(functools.partial(_order, spec), out_shardings=whole),
        batch=jax.jit(lambda epoch, step: _batch(spec, epoch.split, epoch.order, step % per_epoch)),
        reset=jit(
            lambda c: c._replace(metrics=_zeros(found), skipped=c.skipped.at[1].set(0)),
            donate_argnums=0,
        ),
        leave_out=jit(lambda c: _unless_bad(c, step=c.state.step + 1), donate_argnums=0),
        fold_key=jit(
            lambda c, number: _unless_bad(c, key=jax.random.fold_in(c.state.key, number)),
            donate_argnums=0,
        ),
        compiled=compiled,
        flops=flops.count(traced),
        branches=flops.branches(traced),
        loops=loops,
    )


@functools.lru_cache(maxsize=KEPT)
def compile_evaluate(spec: StepSpec) -> Callable[[Operands, State, Batch], Metrics]:
    """Jits a task's evaluation alone, for (operands, state, batch) -> metrics."""
    return jax.jit(task_functions(spec).evaluate, out_shardings=sharding.replicated(spec.mesh))


def _order(spec: StepSpec, split: batches.Split, key: Key, epoch: int | jax.Array) -> jax.Array:
    lengths = jnp.asarray(split["length"]) if "length" in spec.columns else None
    size = spec.config.batch_size
    return batches.epoch_order(key, epoch, spec.data.num_train, size, lengths)


def _batch(
    spec: StepSpec, split: batches.Split, order: jax.Array, position: jax.Array | int
) -> Batch:
    shards = sharding.sharded(spec.mesh)
    taken = batches.take(split, order, position, spec.config.batch_size, shards)
    return jax.lax.with_sharding_constraint(taken, shards)


def _consume(
    on_nonfinite: str, step: Any, numbers: Operands, carry: LoopState, batch: Batch
) -> LoopState:
    """One step, which changes nothing where one of its metrics is not finite."""
    state, found = step(numbers, carry.state, batch)
    good = nonfinite.all_finite(found)
    if on_nonfinite == "skip":
        found = nonfinite.choose(good, found, _zeros(found))
        state = nonfinite.skip_over(good, state, carry.state)
        skipped = jnp.where(good, carry.skipped.at[0].set(0), carry.skipped + 1)
        return LoopState(state, metrics.add(carry.metrics, found), jnp.int32(-1), skipped)
    # After a bad step all stands still, until the host looks: the state is that before it.
    bad = jnp.where((carry.bad < 0) & ~good, carry.state.step, carry.bad)
    new = LoopState(state, metrics.add(carry.metrics, found), bad, carry.skipped)
    return nonfinite.choose(bad < 0, new, carry._replace(bad=bad))


def _step(
    spec: StepSpec,
    consume: Any,
    numbers: Operands,
    now: tuple[LoopState, jax.Array],
    split: batches.Split,
    key: Key,
) -> tuple[LoopState, jax.Array]:
    """One step of the next batch of a split that is on the device, and the order it was in."""
    carry, order = now
    per_epoch = spec.config.steps_per_epoch(spec.data.num_train)
    epoch, position = carry.state.step // per_epoch, carry.state.step % per_epoch
    order = jax.lax.cond(position == 0, lambda: _order(spec, split, key, epoch), lambda: order)
    return consume(numbers, carry, _batch(spec, split, order, position)), order


def _unless_bad(carry: LoopState, **changes: jax.Array) -> LoopState:
    """The loop state with changes to its state, but for one that stands still after a bad step."""
    changed = carry._replace(state=tree.replace(carry.state, **changes))
    return nonfinite.choose(carry.bad < 0, changed, carry)


def _zeros(like: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
