"""Exact evaluation: every example counts once, whatever the batch size."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdl import metrics
from jaxdl.data.batches import Split, padded_batches
from jaxdl.distributed import sharding
from jaxdl.task import State
from jaxdl.train.step_spec import Operands, StepSpec, state_shapes
from jaxdl.train.train_step import compile_evaluate


def evaluate_split(
    spec: StepSpec,
    numbers: Operands,
    state: State,
    split: Split,
    poll: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """Metrics of a state on a split, by name.

    The totals stay on the device until the last batch; then one transfer and one division.

    Args:
      spec: of the program.
      numbers: its operands.
      state: of the task.
      split: {name: array [N, ...]}.
      poll: called before every batch; ends the evaluation where it raises.
    """
    measure, shards = compile_evaluate(spec), sharding.sharded(spec.mesh)
    totals = None
    for batch in padded_batches(split, spec.config.batch_size):
        poll()
        found = measure(numbers, state, sharding.put(batch, shards))
        totals = found if totals is None else _add(totals, found)
    assert totals is not None
    return metrics.divide(totals)


_add = jax.jit(metrics.add, donate_argnums=0)


def metric_names(spec: StepSpec, batch: Any) -> list[str]:
    """Names of the metrics that evaluation gives for a batch."""
    numbers, state = state_shapes(spec)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    # Placed as in a run, so that it is not traced again there.
    placed = sharding.placed(shapes, sharding.sharded(spec.mesh))
    return list(jax.eval_shape(compile_evaluate(spec), numbers, state, placed))
