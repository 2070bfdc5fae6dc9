"""Average of the last checkpoints of a run (stochastic weight averaging; Izmailov et al., 2018).

The checkpoints themselves are kept, so an interrupted run ends with the same average. Running
statistics are averaged as the parameters are; they are not computed anew on the training data.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import tree
from jaxdl.config import RunConfig
from jaxdl.console import say
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.checkpoint_record import DamagedError, Saved
from jaxdl.run.recovery import restore_on_all
from jaxdl.tasks.supervised import TrainState, eval_variables, with_average
from jaxdl.tasks.supervised_config import SupervisedConfig
from jaxdl.train.train_step import LoopState


def count(config: RunConfig) -> int:
    """Returns the number of last checkpoints that are averaged; 0 for none."""
    return config.average_last if isinstance(config, SupervisedConfig) else 0


def check(config: RunConfig, examples: int) -> None:
    """Checks that a run has as many checkpoints as --average_last asks for.

    Args:
      config: the run's config.
      examples: number of training examples.

    Raises:
      UserError: it has fewer.
    """
    total = config.total_steps(examples)
    every = config.checkpoint_every or config.steps_per_epoch(examples)
    if count(config) > -(-total // every):
        raise UserError(
            f"--average_last={count(config)}: the run has {-(-total // every)} checkpoints in "
            f"{total:,} steps: give at most as many, or a smaller --checkpoint_every"
        )


def average_state(checkpoints: Checkpoints, steps: list[int], carry: LoopState) -> Any:
    """Returns a state in which the average of some checkpoints is evaluated.

    It averages what evaluation would use of each, such as its moving average.

    Args:
      checkpoints: the run's checkpoints.
      steps: steps of the checkpoints.
      carry: the loop state, whose other fields are used.

    Returns:
      The task's state; None if there are no steps, or a checkpoint cannot be read.
    """
    if not steps or not isinstance(carry.state, TrainState):
        return None
    totals: dict[str, np.ndarray] = {}
    for step in steps:
        read = functools.partial(_restore, checkpoints, step, carry)
        saved = restore_on_all(read, carry)
        if saved is None:
            return None
        # float64, so that the mean is that of the numbers, rounded once.
        for path, leaf in sharding.on_host(eval_variables(saved.state.state)).items():
            totals[path] = totals.get(path, np.float64(0)) + leaf.astype(np.float64)
    like = eval_variables(carry.state)

    def mean(path: str, leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        average = np.asarray(totals[path] / len(steps), leaf.dtype)
        return sharding.put(average, leaf.sharding)

    flat = {path: mean(path, leaf) for path, leaf in tree.flatten(like).items()}
    averaged: Any = tree.unflatten(like, flat)
    return with_average(carry.state, averaged)


def _restore(checkpoints: Checkpoints, step: int, carry: LoopState) -> Saved | None:
    """Restores a checkpoint; None, and a line on stderr, if it is damaged or gone."""
    try:
        return checkpoints.restore(step, carry)
    except DamagedError as error:
        say(f"{error}; the summary has no figures of the average of --average_last")
        return None
