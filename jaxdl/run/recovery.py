"""Recovery: the newest checkpoint that is whole, on every process of a run."""

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


def restore_latest_valid(checkpoints: Checkpoints, like: Any, wanted: Any) -> Saved | None:
    """The newest checkpoint that is whole and `wanted(step, record)`; None where there is none.

    Others that are newer are set aside where they are damaged, and deleted where not wanted.

    Raises:
      UserError: there are checkpoints, but all are damaged.
    """
    damaged = []
    for step in reversed(checkpoints.steps()):
        try:
            record, _ = checkpoints.read(step)
            if not wanted(step, record):
                checkpoints.delete(step)
                continue
            saved = checkpoints.restore(step, like)
        except DamagedError as error:
            damaged.append((step, error))
            continue
        for other, why in damaged:
            say(f"{why}; going on from step {step}")
            checkpoints.set_aside(other)
        return saved
    if damaged:
        raise UserError(f"{damaged[0][1]}, and no other is whole: give another --workdir")
    return None


def restore_on_all(find: Callable[[], Saved | None], like: Any) -> Saved | None:
    """Gives all processes what the first one finds, in the shardings of `like`."""
    if jax.process_count() == 1:
        return find()
    found: list[Saved | None] = []

    def look() -> Any:
        found.append(find())
        return found[0] and [found[0].step, found[0].record, found[0].log]

    told = collectives.host0_value(look)
    if told is None:
        return None
    target = tree.flatten(like)
    arrays = {path: np.zeros(leaf.shape, leaf.dtype) for path, leaf in target.items()}
    if found and found[0] is not None:
        arrays = sharding.on_host(found[0].state)
    arrays = collectives.broadcast_from_host0(arrays)
    placed = {path: sharding.put(arrays[path], leaf.sharding) for path, leaf in target.items()}
    step, record, log = told
    return Saved(step, tree.unflatten(like, placed), record, log)
