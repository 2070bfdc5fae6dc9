"""Feeds: the batch of each step, from the devices, the host's memory or Grain's workers.

All feeds yield the same batches. A batch is a function of the seed and the step, so there is no
iterator state to save. A feed also takes the steps, with the functions of `train_step.Program`:
`Resident` many in one call, `Streamed` one per call.

Shapes: N examples of a split, B examples of a batch.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.config import full_batches
from jaxdl.console import say
from jaxdl.data.batches import Balance, Split
from jaxdl.data.records import Records
from jaxdl.distributed import sharding
from jaxdl.task import Batch, Key
from jaxdl.train.step_spec import Operands, StepSpec
from jaxdl.train.train_step import Epoch, LoopState, Program

AHEAD = 2  # batches that are prepared while one is used


class Feed(Protocol):
    """Source of a run's batches."""

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step."""
        ...

    def advance(self, numbers: Operands, carry: LoopState, step: int, steps: int) -> LoopState:
        """Takes `steps` steps from `step` on, across the ends of epochs.

        Args:
          numbers: the operands of the program.
          carry: the loop state at `step`, which is donated.
          step: the current step.
          steps: number of steps.

        Returns:
          The loop state after the steps.
        """
        ...

    def close(self) -> None:
        """Ends the feed's workers."""
        ...


def open_feed(
    program: Program,
    spec: StepSpec,
    split: Split,
    key: Key,
    put: Callable[[Split, jax.sharding.Sharding], Split] = sharding.put,
) -> Feed:
    """Opens the feed of a training split: on the devices if it fits there, else from the host.

    Args:
      program: the compiled program that takes the steps.
      spec: the constants of the program.
      split: the training split.
      key: key of the orders of all epochs.
      put: copies a split to the devices.
    """
    batch_size, sharded = spec.config.batch_size, sharding.sharded(spec.mesh)
    if isinstance(split, Records):
        from jaxdl.data.pipeline import Pipeline

        balance = None
        if spec.data.balanced_by:
            balance = Balance(split.labels(), spec.data.present_classes())
        return Streamed(program, Pipeline(split, key, batch_size, sharded, balance))
    decisive = {name: split[name] for name in split if name in ("length", spec.data.balanced_by)}

    def order(epoch: int) -> jax.Array:
        return program.order(decisive, key, epoch)

    needed, room = sum(array.nbytes for array in split.values()), sharding.data_budget(spec.mesh)
    if needed <= room:
        on_devices = put(split, sharding.replicated(spec.mesh))
        per_epoch = full_batches(spec.data.num_train, batch_size)
        return Resident(program, Epoch(on_devices, key, order(0)), order, per_epoch)
    say(
        f"{needed / 1e9:.1f} GB of training data: batches stream from the host, because a device "
        f"has only {room / 1e9:.1f} GB to spare"
    )
    return Streamed(program, Host(split, order, batch_size, sharded))


class Resident:
    """Feed of a split on the devices: many steps are one call of a loop inside XLA.

    Attributes:
      epoch: the split, and the order of the current epoch.
    """

    def __init__(
        self, program: Program, epoch: Epoch, order: Callable[[int], jax.Array], per_epoch: int
    ):
        """Creates the feed.

        Args:
          program: the compiled program.
          epoch: the split on the devices, and the order of epoch 0.
          order: function from an epoch's number to its order, int32 [N].
          per_epoch: steps per epoch.
        """
        self.epoch = epoch
        self._program, self._order, self._per_epoch = program, order, per_epoch
        self._epoch_number = 0  # number of the epoch whose order `self.epoch` has

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step."""
        self._seek(step)
        return self._program.batch(self.epoch, jnp.int32(step))

    def advance(self, numbers: Operands, carry: LoopState, step: int, steps: int) -> LoopState:
        """Takes `steps` steps from `step` on."""
        if step % self._per_epoch:  # else the loop draws the order with its first step
            self._seek(step)
        carry, self.epoch = self._program.advance(numbers, carry, self.epoch, steps)
        self._epoch_number = (step + steps - 1) // self._per_epoch
        return carry

    def close(self) -> None:
        """Does nothing: there are no workers."""

    def _seek(self, step: int) -> None:
        """Computes the order of a step's epoch, unless the feed has it already."""
        number = step // self._per_epoch
        if number != self._epoch_number:
            self.epoch = self.epoch._replace(order=self._order(number))
            self._epoch_number = number


class Batches(Protocol):
    """Source of batches by step, prepared ahead."""

    def batch(self, step: int) -> Split:
        """Returns the batch of a step."""
        ...

    def close(self) -> None:
        """Ends the workers."""
        ...


class Streamed:
    """Feed of batches from the host, one step per call."""

    def __init__(self, program: Program, source: Batches):
        self._program, self._source = program, source

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step."""
        return self._source.batch(step)

    def advance(self, numbers: Operands, carry: LoopState, step: int, steps: int) -> LoopState:
        """Takes `steps` steps from `step` on."""
        for current in range(step, step + steps):
            carry = self._program.consume(numbers, carry, self._source.batch(current))
        return carry

    def close(self) -> None:
        """Ends the workers."""
        self._source.close()


class Host:
    """Batches of arrays in the host's memory, for data that do not fit on a device."""

    def __init__(
        self,
        split: Split,
        order: Callable[[int], jax.Array],
        batch_size: int,
        placement: jax.sharding.Sharding,
    ):
        """Creates the source and its worker thread.

        Args:
          split: arrays [N, ...] by name.
          order: function from an epoch's number to its order, int32 [N].
          batch_size: examples per batch, B.
          placement: sharding of the batches.
        """
        self._split = split
        self._order, self._batch_size, self._sharding = order, batch_size, placement
        self._per_epoch = full_batches(len(next(iter(split.values()))), batch_size)
        self._epoch: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int32))
        self._worker = ThreadPoolExecutor(1, "batches")
        self._ahead: dict[int, Future[Split]] = {}

    def batch(self, step: int) -> Split:
        """Returns the batch of a step, and begins to prepare those of the next steps."""
        window = range(step, step + 1 + AHEAD)
        self._ahead = {n: batch for n, batch in self._ahead.items() if n in window}
        for n in window:
            if n not in self._ahead:
                self._ahead[n] = self._worker.submit(self._gather, n)
        return self._ahead.pop(step).result()

    def close(self) -> None:
        """Ends the worker."""
        self._worker.shutdown(cancel_futures=True)

    def _gather(self, step: int) -> Split:
        """Gathers the batch of a step; called by the worker thread."""
        epoch, position = divmod(step, self._per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, np.asarray(self._order(epoch))
        start = position * self._batch_size
        rows = self._epoch[1][start : start + self._batch_size]

        def put(column: Any, rows: np.ndarray) -> jax.Array:
            shape = (len(rows), *column.shape[1:])

            def shard(index: Any) -> np.ndarray:  # reads only what this process's devices hold
                return np.asarray(column[rows[index[0]]])

            return jax.make_array_from_callback(shape, self._sharding, shard)

        batch = {name: put(column, rows) for name, column in self._split.items()}
        positions = np.arange(len(rows))
        batch["index"] = put(rows.astype(np.int32), positions)
        return batch | {"mask": put(np.ones(len(rows), np.float32), positions)}
