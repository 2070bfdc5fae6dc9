"""Detours: the steps at which a run went back for one that was not finite.

A list of pairs: the step that it went back to, and the bad one. From the first on the state has
another key; at the second the batch is left out. So a run is a function of its config and this
list, which only ever gets longer, is on the disk before the run goes back, and in every checkpoint.
"""

import json
from pathlib import Path
from typing import Any

from jaxdl import files
from jaxdl.checkpoint import WITHIN
from jaxdl.errors import UserError
from jaxdl.progress import say

Detours = list[list[int]]
NAME = "detours.json"


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
