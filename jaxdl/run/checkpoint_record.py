"""Record of a checkpoint: its fields, their checks when it is read, and the restored content.

`train.resume` makes the record and `checkpoint.Checkpoints` stores it in `record.json`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxdl.errors import UserError

# Types of the entries of a record.
RECORD: dict[str, type] = {
    "step": int,
    "identity": dict,  # the config and the data's fingerprint: everything that decides the bits
    "versions": dict,  # versions of packages, and the devices: they may change the last bits
    "data": str,  # SHA-256 of data.json; empty for a run from before that file existed
    "best": dict,  # see BEST
    "anchor": list,  # the last step at which a checkpoint was due, and the best step then
    "detours": list,  # pairs of the step that the run went back to and the bad step
    "ends": list,  # steps at which the run had ended before it was extended
    "seconds": float,  # seconds since the run began
    "timed": list,  # steps and seconds that the rates count
    "metric": list,  # name of the metric that selects the best, and max or min; empty if unknown
    "logged": bool,  # whether the log has the lines of this step already
    "leaves": dict,  # type and shape of each array by path
    "state_sha256": str,
}
# Checks of the content of lists and dictionaries. A stranger may have sealed the record.
CONTENT_CHECKS: dict[str, Callable[[Any], bool]] = {
    "identity": lambda value: all(type(v) in (str, int, float, bool) for v in value.values()),
    "anchor": lambda value: [type(v) for v in value] == [int, int],
    "detours": lambda value: all(
        isinstance(pair, list) and [type(v) for v in pair] == [int, int] for pair in value
    ),
    "ends": lambda value: all(type(v) is int for v in value),
    "timed": lambda value: len(value) == 2 and all(type(v) in (int, float) for v in value),
    "metric": lambda value: value == [] or _is_metric(value),
    "leaves": lambda value: all(type(v) is str for v in value.values()),
}
# Types of the entries of `best`, a `train.early_stopping.BestTracker`.
BEST: dict[str, tuple[type, ...]] = {
    "step": (int,),  # step of the best evaluation
    "value": (float, int, type(None)),  # its metric; None before the first evaluation
    "since": (int,),  # the step from which patience counts
    "than": (float, int, type(None)),  # the metric that an improvement has to exceed
}


def _is_metric(value: list[Any]) -> bool:
    """Returns True for the name of a metric and its direction."""
    is_text = len(value) == 2 and all(type(v) is str and v.isprintable() for v in value)
    return is_text and value[1] in ("max", "min")


class Saved(NamedTuple):
    """Content of a checkpoint.

    Attributes:
      step: its step.
      state: the state that was saved.
      record: entries as in `RECORD`.
      log: text of the run's log so far.
    """

    step: int
    state: Any
    record: dict[str, Any]
    log: str


class DamagedError(UserError):
    """A checkpoint's files differ from what was written."""
