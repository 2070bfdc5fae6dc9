"""Sequences of like length as arrays of few widths: a task compiled once for each.

Shapes: B examples of up to T positions.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.data.batches import Split
from jaxdl.task import Batch, Metrics, State, Task

EDGES = 64  # as many places, evenly apart, are looked at for a width


def widths(lengths: np.ndarray, count: int) -> list[int]:
    """Ascending widths, at most `count`, by which an epoch's batches would be padded least.

    Args:
      lengths: [N], of the examples.
      count: of widths; the last is the greatest length.
    """
    edges = places(int(lengths.max()))
    fit = [int(n) for n in np.searchsorted(np.sort(lengths), edges, side="right")]
    # Of the examples that fit an edge: the fewest positions with it as the last of so many widths.
    best = [(edge * n, [edge]) for edge, n in zip(edges, fit, strict=True)]
    for _ in range(count - 1):
        best = [
            min(
                best[j],
                *(
                    (positions + edges[j] * (fit[j] - fit[i]), [*chosen, edges[j]])
                    for i, (positions, chosen) in enumerate(best[:j])
                ),
            )
            if j
            else best[j]
            for j in range(len(edges))
        ]
    return best[-1][1]


def fit(splits: Sequence[Split], count: int) -> tuple[int, ...]:
    """Widths for the first of some splits, that of training, and the longest of all."""
    longest = max(int(split["length"].max()) for split in splits)
    return tuple(sorted({*widths(splits[0]["length"], count), longest}))


def places(longest: int) -> list[int]:
    """Candidate widths: at most `EDGES` even numbers evenly apart, and the greatest length."""
    apart = 2 * -(-longest // (2 * EDGES))
    return [*range(apart, longest, apart), longest]


def waste(lengths: np.ndarray, rows: np.ndarray, batch_size: int, widths: list[int]) -> float:
    """The share of positions that are padding, in the batches of an order `rows` [N]."""
    count = len(rows) // batch_size
    batches = np.asarray(lengths)[rows[: count * batch_size]].reshape(count, batch_size)
    width = np.asarray(widths)[np.searchsorted(widths, batches.max(1))]
    return float(1 - batches.sum() / (width.sum() * batch_size))


def bucketed(task: Task, widths: Sequence[int], entries: Collection[str]) -> Task:
    """A task that is given batches cut to the smallest width that loses nothing.

    All widths are in one compiled program, of which each step runs one branch.

    Args:
      task: whose step and evaluation take any width.
      widths: ascending; the last is that of the arrays.
      entries: of a batch that are cut: [B, T, ...], where T positions are those of `length` [B],
        the greatest of its entries'.
    """

    def narrowed(fun: Callable[..., Any], width: int) -> Callable[..., Any]:
        def run(state: State, batch: Batch) -> Any:
            cut = {k: a[:, :width] if k in entries else a for k, a in batch.items()}
            return fun(state, cut)

        return run

    def choose(fun: Callable[..., Any], state: State, batch: Batch) -> Any:
        number = jnp.searchsorted(jnp.asarray(widths), jnp.max(batch["length"]))
        return jax.lax.switch(number, [narrowed(fun, width) for width in widths], state, batch)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        result: tuple[State, Metrics] = choose(task.step, state, batch)
        return result

    def evaluate(state: State, batch: Batch) -> Metrics:
        result: Metrics = choose(task.evaluate, state, batch)
        return result

    return task._replace(step=step, evaluate=evaluate)
