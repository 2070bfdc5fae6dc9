"""Batches of records, prefetched by Grain's worker processes, as a function of (key, step).

Grain's source is indexed by the training step. A run that is resumed or rewound starts a new
iterator at its step, so there is no iterator state to save.
"""

import os
import signal
import threading
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.config import full_batches
from jaxdl.console import say
from jaxdl.data import batches
from jaxdl.data.batches import Split
from jaxdl.data.records import Draw, Records
from jaxdl.errors import TrainingError, UserError, first_line

AHEAD = 2  # batches that each worker prefetches


def check() -> None:
    """Checks that Grain is installed.

    Raises:
      UserError: Grain is not installed.
    """
    try:
        import grain  # noqa: F401
    except ImportError as error:
        raise UserError("--stream needs Grain: pip install -e '.[grain]'") from error


class Steps:
    """Random-access source of this host's part of the batch of each step."""

    def __init__(
        self,
        split: Records,
        key: np.ndarray,
        batch_size: int,
        held: np.ndarray,
        balance: batches.Balance | None = None,
    ):
        """Prepares to read the batches of a split.

        Args:
          split: split to read.
          key: data of the random key of all epochs, from `jax.random.key_data`.
          batch_size: B, of the global batch.
          held: rows of a batch that the devices of this host hold, int [H].
          balance: classes of the examples, to draw all classes equally; see `epoch_order`.
        """
        self._split, self._key, self._batch_size, self._held = split, key, batch_size, held
        self._balance = balance
        self._batches_per_epoch = full_batches(len(split.rows), batch_size)
        self._cached_order: tuple[int, np.ndarray] = (-1, held)  # epoch and its order

    def __len__(self) -> int:
        return 2**31 - 1

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        epoch, position = divmod(step, self._batches_per_epoch)
        if self._cached_order[0] != epoch:
            key = jax.random.wrap_key_data(jnp.asarray(self._key))
            count = len(self._split.rows)
            order = batches.epoch_order(key, epoch, count, self._batch_size, balance=self._balance)
            self._cached_order = epoch, np.asarray(order)
        rows = self._cached_order[1][position * self._batch_size + self._held]
        seed = int(self._key.astype(np.uint64) @ np.array([2**32, 1], np.uint64))
        # A balanced epoch repeats examples, which get another random crop in each step.
        draw = Draw(seed, epoch if self._balance is None else step)
        return self._split.read(rows, draw) | {"index": rows.astype(np.int32)}


class Pipeline:
    """Batches of records by step, with the interface of `stream.Stream` for arrays."""

    def __init__(
        self,
        split: Records,
        key: jax.Array,
        batch_size: int,
        sharding: jax.sharding.Sharding,
        balance: batches.Balance | None = None,
    ):
        """Prepares to read a split; the workers start with the first batch.

        Args:
          split: split to read.
          key: random key of all epochs; see `batches.epoch_order`.
          batch_size: B, of the global batch.
          sharding: sharding of the batches.
          balance: classes of the examples, to draw all classes equally.
        """
        import grain
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # Grain reads its own flags from absl
        self._grain, self._batch_size, self._sharding = grain, batch_size, sharding
        slices = sharding.addressable_devices_indices_map((batch_size,)).values()
        rows = np.arange(batch_size)
        self._held = np.unique(np.concatenate([rows[index] for index in slices if index]))
        # A worker process reads in one thread: the processes run in parallel.
        single_threaded = split.seen(1, split.smallest)
        key_data = np.asarray(jax.random.key_data(key))
        self._steps = Steps(single_threaded, key_data, batch_size, self._held, balance)
        self._workers = split.workers
        self._iterator: Any = None
        self._next_step = -1  # step of the iterator's next batch; -1: no valid iterator

    def batch(self, step: int) -> Split:
        """Returns the batch of a step, while the workers prefetch those of the next steps.

        Args:
          step: number of the training step.

        Returns:
          The batch, global arrays with `index` [B] and `mask` [B].

        Raises:
          TrainingError: an image is damaged, or the workers fail twice in a row.
        """
        if self._next_step != step:
            self._start(step)
        self._next_step = -1  # stays invalid if this fails
        try:
            arrays = next(self._iterator)
        except Exception as error:  # Grain wraps any error of a worker
            # A worker that was killed, as when memory is short, has no state to lose.
            say(f"a worker ended ({_innermost(error)}): all workers are restarted")
            self._start(step)
            try:
                arrays = next(self._iterator)
            except Exception as second_error:
                message = f"no batch can be read: {_innermost(second_error)}"
                raise TrainingError(message) from second_error
        self._next_step = step + 1

        def to_global(local: np.ndarray) -> jax.Array:
            def shard(index: Any) -> np.ndarray:
                rows = np.arange(self._batch_size)[index[0]]
                return local[np.searchsorted(self._held, rows)]

            return jax.make_array_from_callback(
                (self._batch_size, *local.shape[1:]), self._sharding, shard
            )

        arrays |= {"mask": np.ones(len(self._held), np.float32)}
        return {name: to_global(np.asarray(array)) for name, array in arrays.items()}

    def close(self) -> None:
        """Ends the workers."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _start(self, step: int) -> None:
        """Starts new workers at a step."""
        self.close()
        grain = self._grain
        steps = grain.MapDataset.source(self._steps)[step:]
        read_options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        workers = grain.MultiprocessingOptions(
            num_workers=self._workers, per_worker_buffer_size=AHEAD
        )
        dataset = steps.to_iter_dataset(read_options).mp_prefetch(
            workers, partial(_init_worker, os.getpid())
        )
        self._iterator = iter(dataset)


def _init_worker(parent: int, number: int, count: int) -> None:
    """Initializes a worker process: no accelerator, no terminal signals, an end with its parent."""
    from absl import logging

    del number, count
    logging.set_verbosity(logging.FATAL)  # silences TFDS's warnings; errors are raised anyway
    jax.config.update("jax_platforms", "cpu")
    for ignored in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to the whole group
        signal.signal(ignored, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _innermost(error: BaseException) -> str:
    """First line of the error that caused the others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
