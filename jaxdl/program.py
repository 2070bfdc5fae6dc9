"""The compiled functions of a run: a task's own three, and what carries a state through them."""

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdl import cost, finite, metrics, parallel, tree
from jaxdl.config import RunConfig
from jaxdl.data import batches
from jaxdl.evaluate import Evaluate, evaluator
from jaxdl.task import Batch, Metrics, State, Task


class Carry(NamedTuple):
    """Carry of the loop over steps, and the content of checkpoints."""

    state: State
    metrics: Metrics  # since the last line of the log
    bad: jax.Array  # int32: the step that was not finite, or -1
    skipped: jax.Array  # int32 [2]: steps skipped in a row, and since the last line of the log


class Feed(NamedTuple):
    """Source of a run's batches: the training split, on the device."""

    split: batches.Split
    key: jax.Array  # of the order of every epoch
    order: jax.Array  # int32 [N], of the epoch that the next step is in


Moving = tuple[Carry, jax.Array]  # what changes with a step: the carry, and the epoch's order


class Program(NamedTuple):
    """The compiled functions of a run. Those that take a carry donate it."""

    start: Callable[[jax.Array], Carry]  # key -> the carry of step 0
    like: Carry  # its shapes and shardings, without any array
    order: Callable[[jax.Array, int], jax.Array]  # (key, epoch) -> int32 [N]
    batch: Callable[[Feed, jax.Array], Batch]  # that of a step of the feed's epoch
    advance: Callable[[Carry, Feed, int], tuple[Carry, Feed]]  # so many steps
    consume: Callable[[Carry, Batch], Carry]  # one step, of a batch from elsewhere
    reset: Callable[[Carry], Carry]  # with metrics of zero
    leave_out: Callable[[Carry], Carry]  # one step that changes nothing but the step
    turn: Callable[[Carry, int], Carry]  # with another key, made from a number
    evaluate: Evaluate
    flops: Counter[str]  # of one step, by scope
    compiled: Callable[[Carry, Feed], jax.stages.Compiled]  # what `advance` calls, to look at
    branches: int  # forms of the step in the program, of which each step takes one
    loops: bool  # whether the steps of a call are a loop inside XLA


def compile_program(task: Task, config: RunConfig, split: batches.Split, mesh: Mesh) -> Program:
    """Jits a task's functions: the state donated, the batch sharded over `mesh`.

    Steps are the iterations of a loop inside XLA, which draws the order of each epoch and gathers
    each batch. However many of them a call of `advance` makes, their bits are the same: all go
    through one compiled body. On a CPU it lets go of the loop where a task has convolutions that
    are not `jaxdl.models.convolution`'s: their gradients are up to 60 times slower inside one.

    Args:
      task: its three functions.
      config: of the run.
      split: what it trains on; only shapes are used, and an entry `length` [N] if it has one:
        then a batch's examples are of like length.
      mesh: the devices.
    """
    examples = batches.size(split)
    per_epoch = config.steps_per_epoch(examples)
    whole, shards = parallel.replicated(mesh), parallel.sharded(mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    rows = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in split.items()}
    one_batch = jax.eval_shape(lambda s, r: batches.take(s, r, 0, len(r)), shapes, rows)
    # As the compiled step will call it, mesh and all: so it is not traced again there.
    given = (
        parallel.placed(jax.eval_shape(task.init, key), whole),
        parallel.placed(one_batch, shards),
    )
    traced, (_, found) = jax.make_jaxpr(task.step, return_shape=True)(*given)
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    loops = not (on_cpu and "conv_general_dilated" in cost.primitives(traced))

    def order(key: jax.Array, epoch: int | jax.Array) -> jax.Array:
        if "length" in split:
            lengths = jnp.asarray(split["length"])
            return batches.like_lengths(key, epoch, lengths, config.batch_size)
        return batches.epoch_order(key, epoch, examples)

    def batch(feed: Feed, step: jax.Array) -> Batch:
        position, size = step % per_epoch, config.batch_size
        taken = batches.take(feed.split, feed.order, position, size, shards)
        return jax.lax.with_sharding_constraint(taken, shards)

    def start(key: jax.Array) -> Carry:
        return Carry(task.init(key), _zeros(found), jnp.int32(-1), jnp.zeros(2, jnp.int32))

    def consume(carry: Carry, batch: Batch) -> Carry:
        state, found = task.step(carry.state, batch)
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

    def step(now: Moving, feed: Feed) -> Moving:
        carry, rows = now
        epoch, position = carry.state.step // per_epoch, carry.state.step % per_epoch
        rows = jax.lax.cond(position == 0, lambda: order(feed.key, epoch), lambda: rows)
        return consume(carry, batch(feed._replace(order=rows), carry.state.step)), rows

    def loop(now: Moving, split: batches.Split, key: jax.Array, steps: jax.Array) -> Moving:
        feed = Feed(split, key, now[1])
        return jax.lax.fori_loop(0, steps, lambda _, now: step(now, feed), now)

    def advance(carry: Carry, feed: Feed, steps: int) -> tuple[Carry, Feed]:
        now = carry, feed.order
        if loops:
            now = many(now, feed.split, feed.key, np.int32(steps))
        else:
            for _ in range(steps):
                now = one(now, feed.split, feed.key)
        return now[0], feed._replace(order=now[1])

    def compiled(carry: Carry, feed: Feed) -> jax.stages.Compiled:
        arguments = (carry, feed.order), feed.split, feed.key
        lowered = many.lower(*arguments, np.int32(1)) if loops else one.lower(*arguments)
        return lowered.compile()

    shapes_of_carry = jax.eval_shape(start, key)
    where = parallel.of_state(mesh, shapes_of_carry, config.fsdp)
    jit = functools.partial(jax.jit, donate_argnums=0, out_shardings=where)
    moving = functools.partial(jit, out_shardings=(where, whole))
    many, one = moving(loop), moving(lambda now, split, key: step(now, Feed(split, key, now[1])))
    return Program(
        start=jax.jit(start, out_shardings=where),
        like=parallel.placed(shapes_of_carry, where),
        order=jax.jit(order, out_shardings=whole),
        batch=jax.jit(batch),
        advance=advance,
        consume=jit(consume),
        reset=jit(lambda c: c._replace(metrics=_zeros(found), skipped=c.skipped.at[1].set(0))),
        leave_out=jit(lambda c: _unless_bad(c, step=c.state.step + 1)),
        turn=jit(lambda c, number: _unless_bad(c, key=jax.random.fold_in(c.state.key, number))),
        evaluate=evaluator(task, mesh, where.state),
        flops=cost.flops(traced),
        compiled=compiled,
        branches=cost.branches(traced),
        loops=loops,
    )


def _unless_bad(carry: Carry, **changes: jax.Array) -> Carry:
    """The carry with changes to its state, but for one that stands still after a bad step."""
    changed = carry._replace(state=tree.replace(carry.state, **changes))
    return finite.choose(carry.bad < 0, changed, carry)


def _zeros(like: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
