"""Batches out of the host's memory, for data that a device's cannot hold.

Shapes: N examples of a split, B of a batch.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from jaxdl.data.batches import Split

AHEAD = 2  # batches that are made and sent while one is used


class Stream:
    """The same batches as `batches.take` gives, by the number of the step: no iterator state."""

    def __init__(
        self,
        split: Split,
        order: Callable[[int], jax.Array],
        batch_size: int,
        sharding: jax.sharding.Sharding,
    ):
        """Visits `split` in epoch e in the order `order(e)` [N]; puts batches by `sharding`."""
        self._split = {name: np.asarray(array) for name, array in split.items()}
        self._order, self._batch_size, self._sharding = order, batch_size, sharding
        self._per_epoch = len(next(iter(self._split.values()))) // batch_size
        self._known: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int32))
        self._worker = ThreadPoolExecutor(1, "batches")
        self._made: dict[int, Future[Split]] = {}

    def batch(self, step: int) -> Split:
        """The batch of a step; those of the next ones are begun."""
        wanted = range(step, step + 1 + AHEAD)
        self._made = {n: made for n, made in self._made.items() if n in wanted}
        for n in wanted:
            if n not in self._made:
                self._made[n] = self._worker.submit(self._make, n)
        return self._made.pop(step).result()

    def close(self) -> None:
        """Ends the worker."""
        self._worker.shutdown(cancel_futures=True)

    def _make(self, step: int) -> Split:
        epoch, position = divmod(step, self._per_epoch)
        if self._known[0] != epoch:
            self._known = epoch, np.asarray(self._order(epoch))
        start = position * self._batch_size
        rows = self._known[1][start : start + self._batch_size]

        def placed(array: np.ndarray, rows: np.ndarray) -> jax.Array:
            shape = (len(rows), *array.shape[1:])

            def held(index: Any) -> np.ndarray:  # only what this process's devices hold is read
                return array[rows[index[0]]]

            return jax.make_array_from_callback(shape, self._sharding, held)

        batch = {name: placed(array, rows) for name, array in self._split.items()}
        every = np.arange(len(rows))
        batch["index"] = placed(rows.astype(np.int32), every)
        return batch | {"mask": placed(np.ones(len(rows), np.float32), every)}
