"""Detours: the steps at which a run went back for one that was not finite.

A list of pairs: the step that it went back to, and the bad one. From the first on the state has
another key; at the second the batch is left out. So a run is a function of its config and this
list, which only ever gets longer, is on the disk before the run goes back, and in every checkpoint.
"""

import json
from pathlib import Path
from typing import Any

from jaxdl import files
from jaxdl.console import say
from jaxdl.errors import TrainingError, UserError
from jaxdl.run.checkpoint_record import WITHIN

Detours = list[list[int]]
NAME = "detours.json"
MOST_REWINDS = 10  # times that --on_nonfinite=rewind goes back to the same step


def read(folder: Path) -> Detours:
    """The list of a run folder; empty where it has none, or one that is damaged."""
    path = folder / NAME
    if not path.exists():
        return []
    try:
        detours: Any = files.read_json(path).get("detours")
        if not (isinstance(detours, list) and WITHIN["detours"](detours)):
            raise UserError(f"{path} is damaged")
        return detours
    except UserError as error:
        say(f"{error}; going on with what the checkpoints know of it")
        return []


def write(folder: Path, detours: Detours) -> None:
    """Puts the list into a run folder."""
    files.write_text(folder / NAME, json.dumps({"detours": detours}) + "\n")


def on_course(detours: Detours, step: int, others: Detours) -> bool:
    """True if a checkpoint, whose own list is `others`, was made after all detours before it."""
    mine, its = ([pair for pair in each if pair[0] < step] for each in (detours, others))
    return mine == its


def back(detours: Detours, bad: int, every: int) -> Detours:
    """The list with one more detour: from a bad step to the checkpoint that was due before it.

    Args:
      detours: so far.
      bad: the step.
      every: steps between two checkpoints.

    Raises:
      TrainingError: the run has gone back to that checkpoint too often.
    """
    began = bad // every * every
    if sum(other == began for other, _ in detours) == MOST_REWINDS:
        raise TrainingError(
            f"step {bad} is not finite, and the run has gone back to step {began} for such steps "
            f"{MOST_REWINDS} times: lower --learning_rate"
        )
    say(f"step {bad} is not finite: back to {began}, with another key and without its batch")
    return [*detours, [began, bad]]
