"""Histograms of parameters and gradients, for --histograms.

The gradient is computed once more, by a program of its own, so the step and its bits stay the same.
"""

from typing import Any

import jax
import numpy as np

from jaxdl import tree
from jaxdl.task import Batch, State, Task
from jaxdl.trackers.tracker import Histogram

BINS = 64


def compute(task: Task, state: State, batch: Batch) -> dict[str, Histogram]:
    """Computes the histograms of all parameters, and of their gradient on a batch.

    Args:
      task: the run's task.
      state: its state.
      batch: a training batch.

    Returns:
      The histograms by path, such as `parameters/Dense_0/kernel` and `gradients/Dense_0/kernel`. A
      task without `gradient` has those of its parameters only.
    """
    arrays = {
        f"parameters/{tree.parameter_name(path)}": x for path, x in tree.trained(state).items()
    }
    if task.gradient is not None:
        gradient = tree.flatten(jax.jit(task.gradient)(state, batch))
        arrays |= {f"gradients/{tree.parameter_name(path)}": x for path, x in gradient.items()}
    return {name: histogram(values) for name, values in jax.device_get(arrays).items()}


def histogram(values: Any) -> Histogram:
    """Returns the histogram of an array, in `BINS` bins of equal width; leaves out inf and nan."""
    flat = np.asarray(values, np.float64).ravel()
    flat = flat[np.isfinite(flat)]
    counts, edges = np.histogram(flat, BINS)
    return Histogram(
        edges.tolist(), counts.tolist(), float(flat.sum()), float(np.square(flat).sum())
    )
