"""Exact evaluation: every example counts once, whatever the batch size.

`trainer` evaluates with `evaluate_split` during a run, `jaxdl evaluate` does so afterwards.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdl import metrics, ranking
from jaxdl.data.batches import Split, padded_batches, size
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.task import State
from jaxdl.train.step_spec import Operands, StepSpec, abstract_inputs
from jaxdl.train.train_step import compile_evaluate

BEHIND = 2  # batches whose rows stay on the device


def evaluate_split(
    spec: StepSpec,
    numbers: Operands,
    state: State,
    split: Split,
    poll: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """Computes the metrics of a state on a split.

    The totals stay on the device until the last batch. Then there is one transfer and one division.
    The rows of `ranking.Gathered` go to the host, two batches behind.

    Args:
      spec: the constants of the compiled program.
      numbers: the operands of the program.
      state: the task's state.
      split: arrays [N, ...] by name.
      poll: function called before every batch. An exception that it raises ends the evaluation.

    Returns:
      The metrics by name.

    Raises:
      UserError: a metric keeps too many rows in memory.
    """
    metrics_fn, sharded = compile_evaluate(spec), sharding.sharded(spec.mesh)
    totals, rows = None, []
    for batch in padded_batches(split, spec.config.batch_size):
        poll()
        batch_metrics = metrics_fn(numbers, state, sharding.put(batch, sharded))
        batch_totals, gathered = ranking.separate(batch_metrics)
        totals = batch_totals if totals is None else _add(totals, batch_totals)
        if gathered:
            ranking.check_gathered(gathered, size(split))
            rows.append(gathered)
            if len(rows) > BEHIND:  # by now it is computed: the device does not wait
                rows[-1 - BEHIND] = jax.device_get(rows[-1 - BEHIND])
    assert totals is not None
    return metrics.divide(totals | ranking.joined(rows))


_add = jax.jit(metrics.add, donate_argnums=0)


def metric_names(spec: StepSpec, batch: Any, examples: int = 0) -> list[str]:
    """Returns the names of the metrics that evaluation yields for a batch, without running it.

    Args:
      spec: the constants of the compiled program.
      batch: a batch, or its shapes.
      examples: number of examples of the largest split.

    Raises:
      UserError: a metric is not a pair (total, count), or keeps too many rows in memory.
    """
    numbers, state = abstract_inputs(spec)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    # Sharded as in a run, so that the function is not traced again there.
    batch_shapes = sharding.with_sharding(shapes, sharding.sharded(spec.mesh))
    shapes = jax.eval_shape(compile_evaluate(spec), numbers, state, batch_shapes)
    for name, value in shapes.items():
        if not isinstance(value, tuple):
            raise UserError(
                f"the metric {name} is one array: give a pair (total, count), such as "
                "metrics.mean(values, batch['mask'])"
            )
    ranking.check_gathered(shapes, examples)
    return list(shapes)
