"""Compiled step of a run: many steps in one XLA loop, evaluation, and edits of the loop's state.

`compile_step` turns a `step_spec.StepSpec` into a `Program`, the jitted functions that `feed` and
`trainer` call. A program depends on the constants of a task alone. Hyperparameters are arguments,
so a sweep compiles once, and a run with another learning rate takes the program from JAX's cache.
"""

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import metrics, ranking, tree
from jaxdl.data import batches
from jaxdl.distributed import sharding
from jaxdl.run import environment
from jaxdl.task import Batch, Key, Metrics, State
from jaxdl.train import flops, nonfinite
from jaxdl.train.step_spec import (
    MAX_CACHED_PROGRAMS,
    Operands,
    StepSpec,
    abstract_inputs,
    argument_shapes,
    task_functions,
)


class LoopState(NamedTuple):
    """Carry of the loop over steps, and the content of checkpoints.

    Attributes:
      state: the task's state.
      metrics: totals and counts since the last line of the log.
      bad: int32 scalar, the step that was not finite, or -1.
      skipped: int32 [2], steps skipped in a row, and steps skipped since the last line of the log.
    """

    state: State
    metrics: Metrics
    bad: jax.Array
    skipped: jax.Array


class Epoch(NamedTuple):
    """A training split on the devices, and the order of its examples in the current epoch.

    Attributes:
      split: the training split, arrays [N, ...] by name.
      key: key of the orders of all epochs.
      order: int32 [N], the order in the epoch of the next step.
    """

    split: batches.Split
    key: Key
    order: jax.Array


class Program(NamedTuple):
    """Compiled functions of a run.

    Most take the operands first. Functions that take a loop state donate it.

    Attributes:
      start: (operands, key) -> the loop state at step 0.
      state_shapes: shapes and shardings of the loop state, without any array.
      advance: (operands, loop state, epoch, steps) -> the loop state and epoch after the steps.
      consume: (operands, loop state, batch) -> the loop state after one step.
      evaluate: (operands, state, batch) -> metrics.
      order: (split, key, epoch number) -> order of the examples in that epoch, int32 [N].
      batch: (epoch, step) -> the batch of that step of the epoch.
      reset: loop state -> the same with the metrics and counts since the last log line at zero.
      leave_out: loop state -> the same with the step counter moved on by one.
      fold_key: (loop state, number) -> the same with the number folded into the state's key.
      loop: (operands, (loop state, order), split, key, steps) -> (loop state, order): `advance`
        before it is compiled, for maps over members.
      compiled: (operands, loop state, epoch) -> the compiled function that `advance` calls.
      flops: floating-point operations of one step by scope.
      branches: number of alternative forms of the step, of which each step executes one.
      loops: whether the steps of a call are a loop inside XLA.
      native: those of `environment.NATIVE` that it has, on a CPU.
    """

    start: Callable[[Operands, Key], LoopState]
    state_shapes: LoopState
    advance: Callable[[Operands, LoopState, Epoch, int], tuple[LoopState, Epoch]]
    consume: Callable[[Operands, LoopState, Batch], LoopState]
    evaluate: Callable[[Operands, State, Batch], Metrics]
    order: Callable[[batches.Split, Key, int], jax.Array]
    batch: Callable[[Epoch, jax.Array], Batch]
    reset: Callable[[LoopState], LoopState]
    leave_out: Callable[[LoopState], LoopState]
    fold_key: Callable[[LoopState, int], LoopState]
    loop: Callable[..., tuple[LoopState, jax.Array]]
    compiled: Callable[[Operands, LoopState, Epoch], jax.stages.Compiled]
    flops: Counter[str]
    branches: int
    loops: bool
    native: tuple[str, ...]


# Long: each function of a program is defined or named here once.
@functools.lru_cache(maxsize=MAX_CACHED_PROGRAMS)
def compile_step(spec: StepSpec) -> Program:
    """Jits a task's functions, with the state donated and the batch sharded over the mesh.

    Steps are the iterations of a loop inside XLA, which draws the order of each epoch and gathers
    each batch. The bits do not depend on how many steps a call of `advance` takes: all steps go
    through one compiled body.

    On a CPU the loop is avoided if a task has convolutions other than those of
    `jaxdl.nn.convolution`: their gradients are up to 60 times slower inside a loop.

    Args:
      spec: the constants of the program.

    Raises:
      UserError: the model cannot be built, or a metric of training does not add up.
    """
    config, mesh, data = spec.config, spec.mesh, spec.data
    per_epoch = config.steps_per_epoch(data.num_train)
    replicated = sharding.replicated(mesh)
    functions = task_functions(spec)
    # Shapes with the shardings of the compiled step, so that it is not traced again there.
    _, key, batch = argument_shapes(spec)
    numbers, state = abstract_inputs(spec)
    jaxpr, (_, step_metrics) = jax.make_jaxpr(functions.step, return_shape=True)(
        numbers, state, batch
    )
    ranking.check_additive(step_metrics)
    on_cpu, primitives = mesh.devices.flat[0].platform == "cpu", flops.primitives(jaxpr)
    loops = not (on_cpu and "conv_general_dilated" in primitives)

    def start(numbers: Operands, key: Key) -> LoopState:
        return LoopState(
            state=functions.init(numbers, key),
            metrics=_zeros(step_metrics),
            bad=jnp.int32(-1),
            skipped=jnp.zeros(2, jnp.int32),
        )

    consume = functools.partial(_consume, config.on_nonfinite, functions.step)
    step = functools.partial(_step, spec, consume)

    def loop(numbers: Operands, now: Any, split: batches.Split, key: Key, steps: jax.Array) -> Any:
        return jax.lax.fori_loop(0, steps, lambda _, now: step(numbers, now, split, key), now)

    shapes = jax.eval_shape(start, numbers, key)
    shardings = sharding.state_shardings(mesh, shapes, spec.fsdp)
    jit = functools.partial(jax.jit, out_shardings=shardings)
    jit_donating = functools.partial(
        jax.jit, donate_argnums=1, out_shardings=(shardings, replicated)
    )
    many_steps, one_step = jit_donating(loop), jit_donating(step)

    def advance(
        numbers: Operands, carry: LoopState, epoch: Epoch, steps: int
    ) -> tuple[LoopState, Epoch]:
        now = carry, epoch.order
        if loops:
            now = many_steps(numbers, now, epoch.split, epoch.key, np.int32(steps))
        else:
            for _ in range(steps):
                now = one_step(numbers, now, epoch.split, epoch.key)
        carry, order = now
        return carry, epoch._replace(order=order)

    def compiled(numbers: Operands, carry: LoopState, epoch: Epoch) -> jax.stages.Compiled:
        arguments = numbers, (carry, epoch.order), epoch.split, epoch.key
        if loops:
            return many_steps.lower(*arguments, np.int32(1)).compile()
        return one_step.lower(*arguments).compile()

    return Program(
        start=jit(start),
        state_shapes=sharding.with_sharding(shapes, shardings),
        advance=advance,
        consume=jit(consume, donate_argnums=1),
        evaluate=compile_evaluate(spec),
        order=jax.jit(functools.partial(_order, spec), out_shardings=replicated),
        batch=jax.jit(lambda epoch, step: _batch(spec, epoch.split, epoch.order, step % per_epoch)),
        reset=jit(
            lambda c: c._replace(metrics=_zeros(step_metrics), skipped=c.skipped.at[1].set(0)),
            donate_argnums=0,
        ),
        leave_out=jit(lambda c: _unless_bad(c, step=c.state.step + 1), donate_argnums=0),
        fold_key=jit(
            lambda c, number: _unless_bad(c, key=jax.random.fold_in(c.state.key, number)),
            donate_argnums=0,
        ),
        loop=loop,
        compiled=compiled,
        flops=flops.count(jaxpr),
        branches=flops.branches(jaxpr),
        loops=loops,
        native=tuple(
            name for name, own in environment.NATIVE.items() if on_cpu and own in primitives
        ),
    )


@functools.lru_cache(maxsize=MAX_CACHED_PROGRAMS)
def compile_evaluate(spec: StepSpec) -> Callable[[Operands, State, Batch], Metrics]:
    """Jits a task's evaluation, a function from (operands, state, batch) to metrics."""
    return jax.jit(task_functions(spec).evaluate, out_shardings=sharding.replicated(spec.mesh))


@functools.lru_cache(maxsize=MAX_CACHED_PROGRAMS)
def compile_evaluate_many(spec: StepSpec) -> Callable[..., Metrics]:
    """Jits a loop of evaluations, a function that returns the totals after several batches.

    Its arguments are the operands, the totals before, which are donated, the task's state, arrays
    with the rows of the batches one after the other, and the numbers of the first batch and of the
    one after the last.
    """
    evaluate, sharded = task_functions(spec).evaluate, sharding.sharded(spec.mesh)
    batch_size = spec.config.batch_size

    def evaluate_many(
        numbers: Operands,
        totals: Metrics,
        state: State,
        rows: batches.Split,
        first: jax.Array,
        end: jax.Array,
    ) -> Metrics:
        def add_batch(number: jax.Array, totals: Metrics) -> Metrics:
            def part(column: jax.Array) -> jax.Array:
                return jax.lax.dynamic_slice_in_dim(column, number * batch_size, batch_size)

            batch = jax.lax.with_sharding_constraint(jax.tree.map(part, rows), sharded)
            return metrics.add(totals, evaluate(numbers, state, batch))

        return jax.lax.fori_loop(first, end, add_batch, totals)

    replicated = sharding.replicated(spec.mesh)
    return jax.jit(evaluate_many, donate_argnums=1, out_shardings=replicated)


def clear_programs() -> None:
    """Frees the memory of all compiled programs of this process."""
    programs = (compile_step, compile_evaluate, compile_evaluate_many)
    for cached in (*programs, abstract_inputs, task_functions):
        cached.cache_clear()
    jax.clear_caches()


def _order(spec: StepSpec, split: batches.Split, key: Key, epoch: int | jax.Array) -> jax.Array:
    """Returns the order of a split's examples in an epoch, int32 [N]."""
    lengths = jnp.asarray(split["length"]) if "length" in spec.columns else None
    size, by = spec.config.batch_size, spec.data.balanced_by
    balance = batches.Balance(jnp.asarray(split[by]), spec.data.present_classes()) if by else None
    return batches.epoch_order(key, epoch, spec.data.num_train, size, lengths, balance)


def _batch(
    spec: StepSpec, split: batches.Split, order: jax.Array, position: jax.Array | int
) -> Batch:
    """Gathers the batch at a position of an epoch, sharded over the mesh."""
    sharded = sharding.sharded(spec.mesh)
    batch = batches.take(split, order, position, spec.config.batch_size, sharded)
    return jax.lax.with_sharding_constraint(batch, sharded)


def _consume(
    on_nonfinite: str, step: Any, numbers: Operands, carry: LoopState, batch: Batch
) -> LoopState:
    """Takes one step, which changes nothing if one of its metrics is not finite."""
    state, step_metrics = step(numbers, carry.state, batch)
    good = nonfinite.all_finite(step_metrics)
    if on_nonfinite == "skip":
        step_metrics = nonfinite.choose(good, step_metrics, _zeros(step_metrics))
        state = nonfinite.skip_over(good, state, carry.state)
        skipped = jnp.where(good, carry.skipped.at[0].set(0), carry.skipped + 1)
        return LoopState(state, metrics.add(carry.metrics, step_metrics), jnp.int32(-1), skipped)
    # After a bad step nothing changes until the host has checked; the state remains the one before
    # the step.
    bad = jnp.where((carry.bad < 0) & ~good, carry.state.step, carry.bad)
    new = LoopState(state, metrics.add(carry.metrics, step_metrics), bad, carry.skipped)
    return nonfinite.choose(bad < 0, new, carry._replace(bad=bad))


def _step(
    spec: StepSpec,
    consume: Any,
    numbers: Operands,
    now: tuple[LoopState, jax.Array],
    split: batches.Split,
    key: Key,
) -> tuple[LoopState, jax.Array]:
    """Takes one step on the next batch of a split on the devices.

    Args:
      spec: the constants of the program.
      consume: (operands, loop state, batch) -> the loop state after the batch.
      numbers: the operands.
      now: the loop state, and the order int32 [N] of the current epoch.
      split: the training split on the devices.
      key: key of the orders of all epochs.

    Returns:
      The loop state after the step, and the order of the step's epoch.
    """
    carry, order = now
    per_epoch = spec.config.steps_per_epoch(spec.data.num_train)
    epoch, position = carry.state.step // per_epoch, carry.state.step % per_epoch
    order = jax.lax.cond(position == 0, lambda: _order(spec, split, key, epoch), lambda: order)
    return consume(numbers, carry, _batch(spec, split, order, position)), order


def _unless_bad(carry: LoopState, **changes: jax.Array) -> LoopState:
    """Replaces fields of the task's state, except after a bad step, when nothing may change."""
    changed = carry._replace(state=tree.replace(carry.state, **changes))
    return nonfinite.choose(carry.bad < 0, changed, carry)


def _zeros(like: Any) -> Any:
    """Returns arrays of zeros with the shapes and types of `like`."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
