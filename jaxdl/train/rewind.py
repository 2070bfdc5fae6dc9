"""Detours: the steps at which a run went back because a later step was not finite.

A detour is a pair of steps, [the step that the run went back to, the bad step]. From the first on
the state has another key. At the second the batch is left out. So a run is a function of its config
and its list of detours. The list only grows. It is on disk before the run goes back, and it is in
every checkpoint. `trainer` goes back; `resume` chooses the checkpoint to go back to.
"""

import json
from pathlib import Path
from typing import Any

from jaxdl import files
from jaxdl.console import say
from jaxdl.errors import TrainingError, UserError
from jaxdl.run.checkpoint_record import CONTENT_CHECKS

Detours = list[list[int]]
NAME = "detours.json"
MOST_REWINDS = 10  # times that --on_nonfinite=rewind goes back to the same step


def read(folder: Path) -> Detours:
    """Reads the detours of a run folder; an empty list if its file is missing or damaged."""
    path = folder / NAME
    if not path.exists():
        return []
    try:
        detours: Any = files.read_json(path).get("detours")
        if not (isinstance(detours, list) and CONTENT_CHECKS["detours"](detours)):
            raise UserError(f"{path} is damaged")
        return detours
    except UserError as error:
        say(f"{error}; going on with the detours that the checkpoints have")
        return []


def write(folder: Path, detours: Detours) -> None:
    """Writes the detours to a run folder."""
    files.write_text(folder / NAME, json.dumps({"detours": detours}) + "\n")


def on_course(detours: Detours, step: int, others: Detours) -> bool:
    """Returns True if a checkpoint was made after all detours that begin before its step.

    Args:
      detours: detours of the run.
      step: step of the checkpoint.
      others: detours in the checkpoint's record.

    >>> on_course([[5, 7]], step=5, others=[]), on_course([[5, 7]], step=10, others=[])
    (True, False)
    """
    expected, recorded = ([d for d in each if d[0] < step] for each in (detours, others))
    return expected == recorded


def add_detour(detours: Detours, bad: int, every: int) -> Detours:
    """Returns the detours with one more, from a bad step to the checkpoint due before it.

    Args:
      detours: detours so far.
      bad: the step that was not finite.
      every: steps between two checkpoints.

    Raises:
      TrainingError: the run has gone back to that checkpoint too often.
    """
    start = bad // every * every
    if sum(other == start for other, _ in detours) == MOST_REWINDS:
        raise TrainingError(
            f"step {bad} is not finite, and the run has gone back to step {start} for such steps "
            f"{MOST_REWINDS} times: lower --learning_rate"
        )
    say(f"step {bad} is not finite: back to {start}, with another key and without its batch")
    return [*detours, [start, bad]]
