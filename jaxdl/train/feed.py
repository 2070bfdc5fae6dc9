"""Feeds: the batch of every step, from the device, the host's memory or Grain's workers.

All give the same batches, each a function of the seed and the step, and keep no iterator state.

Shapes: N examples of a split, B of a batch.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.config import full_batches
from jaxdl.console import say
from jaxdl.data.batches import Split
from jaxdl.data.records import Records
from jaxdl.distributed import sharding
from jaxdl.task import Batch, Key
from jaxdl.train.step_spec import Operands, StepSpec
from jaxdl.train.train_step import Epoch, LoopState, Program

AHEAD = 2  # batches that are made and sent while one is used


class Feed(Protocol):
    """Source of a run's batches."""

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        ...

    def advance(self, numbers: Operands, carry: LoopState, step: int, steps: int) -> LoopState:
        """Makes `steps` steps from `step` on, through as many epochs as they take."""
        ...

    def close(self) -> None:
        """Ends what the feed has begun."""
        ...


def open_feed(program: Program, spec: StepSpec, split: Split, key: Key) -> Feed:
    """The feed of a training split: on the devices; where it is too large there, from the host.

    Args:
      program: that takes its batches.
      spec: of the program.
      split: of training.
      key: of the orders of all epochs.
    """
    size, shards = spec.config.batch_size, sharding.sharded(spec.mesh)
    if isinstance(split, Records):
        from jaxdl.data.pipeline import Pipeline

        return Streamed(program, Pipeline(split, key, size, shards))
    lengths = {name: split[name] for name in split if name == "length"}

    def order(epoch: int) -> jax.Array:
        return program.order(lengths, key, epoch)

    needed, room = sum(array.nbytes for array in split.values()), sharding.room(spec.mesh)
    if needed <= room:
        placed = sharding.put(split, sharding.replicated(spec.mesh))
        per_epoch = full_batches(spec.data.num_train, size)
        return Resident(program, Epoch(placed, key, order(0)), order, per_epoch)
    say(
        f"{needed / 1e9:.1f} GB of training data: batches stream from the host, for a device has "
        f"{room / 1e9:.1f} GB to spare"
    )
    return Streamed(program, Host(split, order, size, shards))


class Resident:
    """A split on the devices: many steps are one call of a loop inside XLA."""

    def __init__(
        self, program: Program, epoch: Epoch, order: Callable[[int], jax.Array], per_epoch: int
    ):
        self.epoch = epoch
        self._program, self._order, self._per_epoch = program, order, per_epoch
        self._held = 0  # number of the epoch whose order is there

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        self._seek(step)
        return self._program.batch(self.epoch, jnp.int32(step))

    def advance(self, numbers: Operands, carry: LoopState, step: int, steps: int) -> LoopState:
        """Makes `steps` steps from `step` on."""
        if step % self._per_epoch:  # else the loop draws the order with its first step
            self._seek(step)
        carry, self.epoch = self._program.advance(numbers, carry, self.epoch, steps)
        self._held = (step + steps - 1) // self._per_epoch
        return carry

    def close(self) -> None:
        """Nothing is open."""

    def _seek(self, step: int) -> None:
        """Finds the order of a step's epoch."""
        epoch = step // self._per_epoch
        if epoch != self._held:
            self.epoch = self.epoch._replace(order=self._order(epoch))
            self._held = epoch


class Batches(Protocol):
    """Batches by the number of the step, made ahead."""

    def batch(self, step: int) -> Split:
        """The batch of a step."""
        ...

    def close(self) -> None:
        """Ends its workers."""
        ...


class Streamed:
    """Batches from the host, a step a call."""

    def __init__(self, program: Program, source: Batches):
        self._program, self._source = program, source

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        return self._source.batch(step)

    def advance(self, numbers: Operands, carry: LoopState, step: int, steps: int) -> LoopState:
        """Makes `steps` steps from `step` on."""
        for number in range(step, step + steps):
            carry = self._program.consume(numbers, carry, self._source.batch(number))
        return carry

    def close(self) -> None:
        """Ends the workers."""
        self._source.close()


class Host:
    """The batches of arrays in the host's memory, for data that a device's cannot hold."""

    def __init__(
        self,
        split: Split,
        order: Callable[[int], jax.Array],
        batch_size: int,
        placement: jax.sharding.Sharding,
    ):
        """Visits `split` in epoch e in the order `order(e)` [N]; puts batches by `placement`."""
        self._split = split
        self._order, self._batch_size, self._sharding = order, batch_size, placement
        self._per_epoch = full_batches(len(next(iter(split.values()))), batch_size)
        self._epoch: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int32))
        self._worker = ThreadPoolExecutor(1, "batches")
        self._ahead: dict[int, Future[Split]] = {}

    def batch(self, step: int) -> Split:
        """The batch of a step; those of the next ones are begun."""
        wanted = range(step, step + 1 + AHEAD)
        self._ahead = {n: batch for n, batch in self._ahead.items() if n in wanted}
        for n in wanted:
            if n not in self._ahead:
                self._ahead[n] = self._worker.submit(self._make, n)
        return self._ahead.pop(step).result()

    def close(self) -> None:
        """Ends the worker."""
        self._worker.shutdown(cancel_futures=True)

    def _make(self, step: int) -> Split:
        epoch, position = divmod(step, self._per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, np.asarray(self._order(epoch))
        start = position * self._batch_size
        rows = self._epoch[1][start : start + self._batch_size]

        def placed(column: Any, rows: np.ndarray) -> jax.Array:
            shape = (len(rows), *column.shape[1:])

            def held(index: Any) -> np.ndarray:  # only what this process's devices hold is read
                return np.asarray(column[rows[index[0]]])

            return jax.make_array_from_callback(shape, self._sharding, held)

        batch = {name: placed(column, rows) for name, column in self._split.items()}
        every = np.arange(len(rows))
        batch["index"] = placed(rows.astype(np.int32), every)
        return batch | {"mask": placed(np.ones(len(rows), np.float32), every)}
