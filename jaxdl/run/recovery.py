"""Recovery: restores the newest checkpoint that is whole, on every process of a run.

`checkpoint.Checkpoints` restores one given step in one process. This module chooses the step, and
sends what the first process has read to the others.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdl import tree
from jaxdl.console import say
from jaxdl.distributed import collectives, sharding
from jaxdl.errors import UserError
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.checkpoint_record import DamagedError, Saved


def restore_latest_valid(
    checkpoints: Checkpoints, like: Any, accept: Callable[[int, dict[str, Any]], bool]
) -> Saved | None:
    """Restores the newest checkpoint that is whole and accepted.

    Newer checkpoints are set aside if they are damaged, and deleted if they are not accepted.

    Args:
      checkpoints: the run's checkpoints.
      like: a state, or the shapes and shardings of one.
      accept: function from (step, record) to whether that checkpoint may be restored.

    Returns:
      The checkpoint, or None if there is none.

    Raises:
      UserError: there are checkpoints, but all are damaged.
    """
    damaged = []
    for step in reversed(checkpoints.steps()):
        try:
            # `restore` verifies the other files.
            if not accept(step, checkpoints.record(step)):
                checkpoints.delete(step)
                continue
            saved = checkpoints.restore(step, like)
        except DamagedError as error:
            damaged.append((step, error))
            continue
        for damaged_step, damage in damaged:
            say(f"{damage}; going on from step {step}")
            checkpoints.set_aside(damaged_step)
        return saved
    if damaged:
        _, newest_damage = damaged[0]
        raise UserError(f"{newest_damage}, and no other is whole: give another --workdir")
    return None


def restore_on_all(restore: Callable[[], Saved | None], like: Any) -> Saved | None:
    """Restores a checkpoint in the first process and sends it to all the others.

    Args:
      restore: function that restores the checkpoint; called in the first process only.
      like: a state, or the shapes and shardings of one.

    Returns:
      The checkpoint in the shardings of `like`, or None if `restore` returned None.
    """
    if jax.process_count() == 1:
        return restore()
    restored: list[Saved | None] = []  # stays empty in all processes but the first

    def restore_on_host0() -> Any:
        saved = restore()
        restored.append(saved)
        return saved and [saved.step, saved.record, saved.log]

    header = collectives.host0_value(restore_on_host0)
    if header is None:
        return None
    target = tree.flatten(like)
    arrays = {path: np.zeros(leaf.shape, leaf.dtype) for path, leaf in target.items()}
    if restored and restored[0] is not None:
        arrays = sharding.on_host(restored[0].state)
    arrays = collectives.broadcast_from_host0(arrays)
    placed = {path: sharding.put(arrays[path], leaf.sharding) for path, leaf in target.items()}
    step, record, log = header
    return Saved(step, tree.unflatten(like, placed), record, log)
