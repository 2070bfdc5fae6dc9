"""Batches of records, made ahead by Grain's worker processes; each a function of seed and step.

Grain gives what stands at an index: here a step. So a run that goes on, or goes back, begins
another iterator at its step, and there is no state of it to keep.
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

AHEAD = 2  # batches that a worker makes while others are used


def check() -> None:
    """Refuses early where there is nothing to stream with.

    Raises:
      UserError: Grain is not installed.
    """
    try:
        import grain  # noqa: F401
    except ImportError as error:
        raise UserError("--stream needs Grain: pip install -e '.[grain]'") from error


class Steps:
    """The rows of a step's batch that this host's devices hold, read when it is indexed."""

    def __init__(self, split: Records, key: np.ndarray, batch_size: int, held: np.ndarray):
        """Reads the rows `held` of `split` in the order of `key`, from `jax.random.key_data`."""
        self._split, self._key, self._batch_size, self._held = split, key, batch_size, held
        self._per_epoch = full_batches(len(split.rows), batch_size)
        self._known: tuple[int, np.ndarray] = (-1, held)

    def __len__(self) -> int:
        return 2**31 - 1

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        epoch, position = divmod(step, self._per_epoch)
        if self._known[0] != epoch:
            key = jax.random.wrap_key_data(jnp.asarray(self._key))
            order = batches.epoch_order(key, epoch, len(self._split.rows), self._batch_size)
            self._known = epoch, np.asarray(order)
        rows = self._known[1][position * self._batch_size + self._held]
        seed = int(self._key.astype(np.uint64) @ np.array([2**32, 1], np.uint64))
        return self._split.read(rows, Draw(seed, epoch)) | {"index": rows.astype(np.int32)}


class Pipeline:
    """Batches of records by the number of the step, as `stream.Stream` gives those of arrays."""

    def __init__(
        self, split: Records, key: jax.Array, batch_size: int, sharding: jax.sharding.Sharding
    ):
        """Reads `split` in the orders that `key` gives its epochs, put where `sharding` says."""
        import grain
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # Grain's own, which it reads from there
        self._grain, self._batch_size, self._sharding = grain, batch_size, sharding
        places = sharding.addressable_devices_indices_map((batch_size,)).values()
        rows = np.arange(batch_size)
        self._held = np.unique(np.concatenate([rows[place] for place in places if place]))
        # A worker reads one image at a time, for there are others.
        one, known = split.seen(1, split.smallest), np.asarray(jax.random.key_data(key))
        self._steps, self._workers = Steps(one, known, batch_size, self._held), split.workers
        self._iterator: Any = None
        self._next = -1

    def batch(self, step: int) -> Split:
        """The batch of a step; those of the next ones are being made.

        Raises:
          TrainingError: an image of it is damaged, or workers end again and again.
        """
        if self._next != step:
            self._begin(step)
        self._next = -1  # should it fail
        try:
            found = next(self._iterator)
        except Exception as error:  # whatever a worker raised, in Grain's words
            # One that was killed, as where memory is short, leaves nothing that is not made again.
            say(f"a worker ended ({_innermost(error)}): all of them are started anew")
            self._begin(step)
            try:
                found = next(self._iterator)
            except Exception as again:
                raise TrainingError(f"no batch can be read: {_innermost(again)}") from again
        self._next = step + 1

        def placed(held: np.ndarray) -> jax.Array:
            def of(index: Any) -> np.ndarray:
                rows = np.arange(self._batch_size)[index[0]]
                return held[np.searchsorted(self._held, rows)]

            return jax.make_array_from_callback(
                (self._batch_size, *held.shape[1:]), self._sharding, of
            )

        found |= {"mask": np.ones(len(self._held), np.float32)}
        return {name: placed(np.asarray(array)) for name, array in found.items()}

    def close(self) -> None:
        """Ends the workers."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _begin(self, step: int) -> None:
        self.close()
        grain = self._grain
        steps = grain.MapDataset.source(self._steps)[step:]
        reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        workers = grain.MultiprocessingOptions(
            num_workers=self._workers, per_worker_buffer_size=AHEAD
        )
        made = steps.to_iter_dataset(reading).mp_prefetch(
            workers, partial(_prepare_worker, os.getpid())
        )
        self._iterator = iter(made)


def _prepare_worker(run: int, number: int, count: int) -> None:
    """Leaves accelerators and signals to the run, and ends with it, however it ends."""
    from absl import logging

    del number, count
    logging.set_verbosity(logging.FATAL)  # TFDS's doubts; what goes wrong is raised all the same
    jax.config.update("jax_platforms", "cpu")
    for signaled in (signal.SIGINT, signal.SIGHUP):  # which a terminal sends to its whole group
        signal.signal(signaled, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == run:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
