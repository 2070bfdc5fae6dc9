"""Exact evaluation: every example counts once, whatever the batch size.

`trainer` evaluates with `evaluate_split` during a run, `jaxdl evaluate` does so afterwards.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdl import metrics, ranking
from jaxdl.data.batches import Split, padded_batches, size
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.task import Metrics, State
from jaxdl.train.step_spec import Operands, StepSpec, abstract_inputs
from jaxdl.train.train_step import compile_evaluate, compile_evaluate_many

BEHIND = 2  # batches whose rows stay on the device
# A device gets so many batches at once, and evaluates them in a loop.
MOST_BATCHES, MOST_BYTES = 16, 32_000_000
CALL_SECONDS = 0.25  # time between two calls of `poll` beyond which the loop is divided


def evaluate_split(
    spec: StepSpec,
    numbers: Operands,
    state: State,
    split: Split,
    poll: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """Computes the metrics of a state on a split.

    The totals stay on the device until the last batch. Then there is one transfer and one division.
    One device evaluates many batches in one loop of XLA. Several devices, and metrics that keep
    rows (`ranking.Gathered`), take one batch a call; the rows go to the host, two batches behind.

    Args:
      spec: the constants of the compiled program.
      numbers: the operands of the program.
      state: the task's state.
      split: arrays [N, ...] by name.
      poll: function called before every call. An exception that it raises ends the evaluation.

    Returns:
      The metrics by name.

    Raises:
      UserError: a metric keeps too many rows in memory.
    """
    shapes = _metric_shapes(spec, next(iter(padded_batches(split, spec.config.batch_size))))
    if spec.mesh.size == 1 and not ranking.separate(shapes)[1]:
        return metrics.divide(_evaluate_many(spec, numbers, state, split, shapes, poll))
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


def _evaluate_many(
    spec: StepSpec,
    numbers: Operands,
    state: State,
    split: Split,
    shapes: Any,
    poll: Callable[[], None],
) -> Metrics:
    """Returns the totals of a split, by loops over several batches on one device.

    Every part of a split has the same number of rows, so that all splits share one program.
    """
    batch_size, sharded = spec.config.batch_size, sharding.sharded(spec.mesh)
    examples, parts = size(split), _batches_of_part(spec, split)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    totals = sharding.put(zeros, sharding.replicated(spec.mesh))
    stride = 1
    for start, rows in enumerate(padded_batches(split, parts * batch_size)):
        rows = sharding.put(rows, sharded)
        left = examples - start * parts * batch_size
        end, first = min(-(-left // batch_size), parts), 0
        while first < end:
            poll()
            began, last = time.perf_counter(), min(first + stride, end)
            totals = compile_evaluate_many(spec)(
                numbers, totals, state, rows, np.int32(first), np.int32(last)
            )
            jax.block_until_ready(totals)
            first = last
            if time.perf_counter() - began < CALL_SECONDS / 2:
                stride *= 2
    return totals


def _batches_of_part(spec: StepSpec, split: Split) -> int:
    """Returns the number of batches that the device gets at once, which depends on the data."""
    batch_size = spec.config.batch_size
    row = next(iter(padded_batches(split, 1)))
    size_of_batch = sum(leaf.nbytes for leaf in jax.tree.leaves(row)) * batch_size
    most = min(MOST_BATCHES, MOST_BYTES // size_of_batch, -(-spec.data.num_train // batch_size))
    return max(1, most)


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
    shapes = _metric_shapes(spec, batch)
    for name, value in shapes.items():
        if not isinstance(value, tuple):
            raise UserError(
                f"the metric {name} is one array: give a pair (total, count), such as "
                "metrics.mean(values, batch['mask'])"
            )
    ranking.check_gathered(shapes, examples)
    return list(shapes)


def _metric_shapes(spec: StepSpec, batch: Any) -> Any:
    """Returns the shapes of the metrics of a batch, or of its shapes."""
    numbers, state = abstract_inputs(spec)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    # Sharded as in a run, so that the function is not traced again there.
    batch_shapes = sharding.with_sharding(shapes, sharding.sharded(spec.mesh))
    return jax.eval_shape(compile_evaluate(spec), numbers, state, batch_shapes)
