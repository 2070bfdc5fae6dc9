"""The record of a checkpoint: its fields, and the checks of a record that is read."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxdl.errors import UserError

RECORD: dict[str, type] = {
    "step": int,
    "identity": dict,  # the config and the data's fingerprint: all that decides the bits
    "versions": dict,  # of packages, and the devices: what may change the last of them
    "data": str,  # SHA-256 of data.json; empty of a run from before there was one
    "best": dict,  # see BEST
    "anchor": list,  # the last step at which a checkpoint was due, and the best one then
    "detours": list,  # pairs of the step that the run went back to and the bad one
    "seconds": float,  # since the run began
    "timed": list,  # steps and seconds that the rate counts
    "leaves": dict,  # type and shape by path
    "state_sha256": str,
}
# What is in those that are lists or dictionaries: a record may be one that a stranger has sealed.
WITHIN: dict[str, Callable[[Any], bool]] = {
    "identity": lambda value: all(type(v) in (str, int, float, bool) for v in value.values()),
    "anchor": lambda value: [type(v) for v in value] == [int, int],
    "detours": lambda value: all(
        isinstance(pair, list) and [type(v) for v in pair] == [int, int] for pair in value
    ),
    "timed": lambda value: len(value) == 2 and all(type(v) in (int, float) for v in value),
    "leaves": lambda value: all(type(v) is str for v in value.values()),
}
BEST: dict[str, tuple[type, ...]] = {
    "step": (int,),  # of the best evaluation
    "value": (float, int, type(None)),  # what it found; None: there was none yet
    "since": (int,),  # the step from which patience counts
    "than": (float, int, type(None)),  # the value that an improvement has to top
}


class Saved(NamedTuple):
    """A checkpoint's content."""

    step: int
    state: Any
    record: dict[str, Any]
    log: str


class DamagedError(UserError):
    """A checkpoint is not what was written."""
