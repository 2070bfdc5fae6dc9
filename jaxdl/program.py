"""The compiled functions of a run: a task's own three, and what carries a state through them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxdl import finite, metrics, parallel, tree
from jaxdl.config import RunConfig
from jaxdl.data import batches
from jaxdl.evaluate import Evaluate, evaluator
from jaxdl.task import Batch, Metrics, State, Task


class Carry(NamedTuple):
    """What goes from step to step, and into checkpoints."""

    state: State
    metrics: Metrics  # since the last line of the log
    bad: jax.Array  # int32: the step that was not finite, or -1
    skipped: jax.Array  # int32 [2]: steps skipped in a row, and since the last line of the log


class Program(NamedTuple):
    """The compiled functions of a run. Those that take a carry donate it."""

    start: Callable[[jax.Array, batches.Split, jax.Array], Carry]  # the carry of step 0
    order: Callable[[jax.Array, int], jax.Array]  # (key, epoch) -> int32 [N]
    batch: Callable[[jax.Array, batches.Split, jax.Array], Batch]  # that of a step
    advance: Callable[[Carry, batches.Split, jax.Array], Carry]  # one step
    reset: Callable[[Carry], Carry]  # with metrics of zero
    leave_out: Callable[[Carry], Carry]  # one step that changes nothing but the step
    turn: Callable[[Carry, int], Carry]  # with another key, made from a number
    evaluate: Evaluate


def compile_program(task: Task, config: RunConfig, examples: int, mesh: Mesh) -> Program:
    """Jits a task's functions: the state replicated and donated, the batch sharded over `mesh`."""
    per_epoch = config.steps_per_epoch(examples)
    whole, shards = parallel.replicated(mesh), parallel.sharded(mesh)

    def batch(step: jax.Array, split: batches.Split, order: jax.Array) -> Batch:
        taken = batches.take(split, order, step % per_epoch, config.batch_size)
        return jax.lax.with_sharding_constraint(taken, shards)

    def step(state: State, split: batches.Split, order: jax.Array) -> tuple[State, Metrics]:
        return task.step(state, batch(state.step, split, order))

    def start(key: jax.Array, split: batches.Split, order: jax.Array) -> Carry:
        state = task.init(key)
        _, shapes = jax.eval_shape(step, state, split, order)
        return Carry(state, _zeros(shapes), jnp.int32(-1), jnp.zeros(2, jnp.int32))

    def advance(carry: Carry, split: batches.Split, order: jax.Array) -> Carry:
        state, found = step(carry.state, split, order)
        good = finite.all_finite(found)
        if config.on_nonfinite == "skip":
            found = finite.choose(good, found, _zeros(found))
            state = finite.skip_over(good, state, carry.state)
            skipped = jnp.where(good, carry.skipped.at[0].set(0), carry.skipped + 1)
            return Carry(state, metrics.add(carry.metrics, found), jnp.int32(-1), skipped)
        # After a bad step all stands still, until the host looks: the state is that before it.
        bad = jnp.where((carry.bad < 0) & ~good, carry.state.step, carry.bad)
        new = Carry(state, metrics.add(carry.metrics, found), bad, carry.skipped)
        return finite.choose(bad < 0, new, carry._replace(bad=bad))

    def leave_out(carry: Carry) -> Carry:
        return carry._replace(state=tree.replace(carry.state, step=carry.state.step + 1))

    def turn(carry: Carry, number: int) -> Carry:
        key = jax.random.fold_in(carry.state.key, number)
        return carry._replace(state=tree.replace(carry.state, key=key))

    def reset(carry: Carry) -> Carry:
        return carry._replace(metrics=_zeros(carry.metrics), skipped=carry.skipped.at[1].set(0))

    return Program(
        start=jax.jit(start, out_shardings=whole),
        order=jax.jit(
            lambda key, epoch: batches.epoch_order(key, epoch, examples), out_shardings=whole
        ),
        batch=jax.jit(batch),
        advance=jax.jit(advance, donate_argnums=0, out_shardings=whole),
        reset=jax.jit(reset, donate_argnums=0, out_shardings=whole),
        leave_out=jax.jit(leave_out, donate_argnums=0, out_shardings=whole),
        turn=jax.jit(turn, donate_argnums=0, out_shardings=whole),
        evaluate=evaluator(task, mesh),
    )


def _zeros(like: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
