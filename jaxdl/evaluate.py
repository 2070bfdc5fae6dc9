"""Exact evaluation: every example counts once, whatever the batch size."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdl import metrics, parallel
from jaxdl.data.batches import Split, padded_batches
from jaxdl.task import State, Task

Evaluate = Callable[..., dict[str, np.ndarray]]


def evaluator(task: Task, mesh: Mesh, where: Any = None) -> Evaluate:
    """Compiles a task's evaluation once, for (state, split, batch_size) -> values by name.

    A fourth argument is called before every batch, and ends the evaluation where it raises. The
    totals stay on the device until the last batch; then one transfer and one division. The state's
    shardings are `where`; None: it is whole on each device.
    """
    whole, shards = parallel.replicated(mesh), parallel.sharded(mesh)

    measure = jax.jit(task.evaluate, in_shardings=(where or whole, shards), out_shardings=whole)
    add = jax.jit(metrics.add, donate_argnums=0, out_shardings=whole)

    def evaluate(
        state: State, split: Split, batch_size: int, poll: Callable[[], None] = lambda: None
    ) -> dict[str, np.ndarray]:
        totals = None
        for batch in padded_batches(split, batch_size):
            poll()
            found = measure(state, parallel.put(batch, shards))
            totals = found if totals is None else add(totals, found)
        assert totals is not None
        return metrics.divide(totals)

    return evaluate
