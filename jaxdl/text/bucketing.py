"""Bucketing of sequences by length: batches are cut to one of a few widths.

Shapes: B examples of up to T positions.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.data.batches import Split
from jaxdl.task import Batch, Metrics, State, Task

EDGES = 64  # number of evenly spaced candidates for a width


def widths(lengths: np.ndarray, count: int) -> list[int]:
    """Chooses the widths that minimize padding, by dynamic programming.

    Each example is counted as padded to the smallest width that it fits.

    Args:
      lengths: lengths of the examples, int [N].
      count: largest number of widths.

    Returns:
      At most `count` ascending widths; the last is the greatest length.
    """
    edges = candidate_widths(int(lengths.max()))
    num_fitting = [int(n) for n in np.searchsorted(np.sort(lengths), edges, side="right")]
    # best[j]: fewest positions of the examples that fit edge j, and widths that end at this edge.
    best = [(edge * n, [edge]) for edge, n in zip(edges, num_fitting, strict=True)]
    for _ in range(count - 1):
        best = [
            min(
                best[j],
                *(
                    (positions + edges[j] * (num_fitting[j] - num_fitting[i]), [*chosen, edges[j]])
                    for i, (positions, chosen) in enumerate(best[:j])
                ),
            )
            if j
            else best[j]
            for j in range(len(edges))
        ]
    return best[-1][1]


def fit(splits: Sequence[Split], count: int) -> tuple[int, ...]:
    """Widths for the training split, the first one, and the greatest length of all splits.

    Args:
      splits: splits with a `length`, int [N].
      count: largest number of widths for the training split.

    Returns:
      Ascending widths.
    """
    longest = max(int(split["length"].max()) for split in splits)
    return tuple(sorted({*widths(splits[0]["length"], count), longest}))


def candidate_widths(longest: int) -> list[int]:
    """Candidate widths: at most `EDGES` evenly spaced even numbers, and the greatest length.

    >>> candidate_widths(300)
    [6, 12, 18, ..., 294, 300]
    """
    spacing = 2 * -(-longest // (2 * EDGES))
    return [*range(spacing, longest, spacing), longest]


def waste(lengths: np.ndarray, rows: np.ndarray, batch_size: int, widths: list[int]) -> float:
    """Fraction of positions that are padding.

    Args:
      lengths: lengths of the examples, int [N].
      rows: order of the epoch, int [N].
      batch_size: B.
      widths: ascending widths that batches are padded to.
    """
    count = len(rows) // batch_size
    batches = np.asarray(lengths)[rows[: count * batch_size]].reshape(count, batch_size)
    width = np.asarray(widths)[np.searchsorted(widths, batches.max(1))]
    return float(1 - batches.sum() / (width.sum() * batch_size))


def bucket(task: Task, widths: Sequence[int], entries: Collection[str]) -> Task:
    """Wraps a task to cut each batch to the smallest width that loses nothing.

    All widths are branches of one compiled program; each step runs one of them.

    Args:
      task: task whose step and evaluation take any width.
      widths: ascending widths; the last is the width of the arrays.
      entries: names of the arrays of a batch to cut, [B, T, ...]. The batch's `length` [B] is the
        greatest length of these arrays.

    Returns:
      The wrapped task.
    """

    def cut_to(fun: Callable[..., Any], width: int) -> Callable[..., Any]:
        def run(state: State, batch: Batch) -> Any:
            cut = {k: a[:, :width] if k in entries else a for k, a in batch.items()}
            return fun(state, cut)

        return run

    def choose(fun: Callable[..., Any], state: State, batch: Batch) -> Any:
        branch = jnp.searchsorted(jnp.asarray(widths), jnp.max(batch["length"]))
        return jax.lax.switch(branch, [cut_to(fun, width) for width in widths], state, batch)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        result: tuple[State, Metrics] = choose(task.step, state, batch)
        return result

    def evaluate(state: State, batch: Batch) -> Metrics:
        result: Metrics = choose(task.evaluate, state, batch)
        return result

    return task._replace(step=step, evaluate=evaluate)
