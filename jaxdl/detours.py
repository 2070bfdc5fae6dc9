"""Where a run went back for a step that was not finite.

A list of pairs: the step that it went back to, and the bad one. From the first on the state has
another key; at the second the batch is left out. So a run is a function of its config and this
list, which only ever gets longer, is on the disk before the run goes back, and in every checkpoint.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

from jaxdl import files
from jaxdl.checkpoint import WITHIN, Checkpoints, DamagedError
from jaxdl.errors import UserError
from jaxdl.progress import say

Detours = list[list[int]]
NAME = "detours.json"


def known(folder: Path, checkpoints: Checkpoints) -> Detours:
    """The longest list that a run folder, or one of its checkpoints, has."""
    lists: list[Detours] = [[]]
    path = folder / NAME
    if path.exists():
        try:
            found: Any = files.read_json(path).get("detours")
            if not (isinstance(found, list) and WITHIN["detours"](found)):
                raise UserError(f"{path} is damaged")
            lists.append(found)
        except UserError as error:
            say(f"{error}; going on with what the checkpoints know of it")
    for step in checkpoints.steps():
        with contextlib.suppress(DamagedError):
            lists.append(checkpoints.read(step)[0]["detours"])
    return max(lists, key=len)


def write(folder: Path, detours: Detours) -> None:
    """Puts the list into a run folder."""
    files.write_text(folder / NAME, json.dumps({"detours": detours}) + "\n")


def on_course(detours: Detours, step: int, known: dict[str, Any]) -> bool:
    """Whether a checkpoint was made after all the detours that lie before its step."""
    mine, its = ([pair for pair in each if pair[0] < step] for each in (detours, known["detours"]))
    return mine == its
