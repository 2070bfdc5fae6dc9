"""Temperature of a run's classifier, which `jaxdl analyze RUN calibration` writes beside it."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from jaxdl import files
from jaxdl.analysis.calibration import LIMITS
from jaxdl.errors import UserError
from jaxdl.task import Task

FOLDER, NAME = "analysis", "temperature.json"


def write(folder: Path, temperature: float, step: int, digest: str) -> None:
    """Writes the temperature of a checkpoint into the run folder, atomically.

    Args:
      folder: the run folder.
      temperature: the temperature.
      step: step of the checkpoint.
      digest: SHA-256 of the checkpoint's state.
    """
    record = {"temperature": temperature, "step": step, "state_sha256": digest}
    files.write_text(folder / FOLDER / NAME, json.dumps(record, indent=2) + "\n")


def read(folder: Path, digest: str) -> float:
    """Reads the temperature of a checkpoint.

    Args:
      folder: the run folder.
      digest: SHA-256 of the checkpoint's state.

    Raises:
      UserError: there is none, the file is damaged, it belongs to another checkpoint, or it is not
        a number from 0.01 to 100.
    """
    path = folder / FOLDER / NAME
    way = f"jaxdl analyze {folder} calibration"
    if not path.exists():
        raise UserError(
            f"{folder} has no temperature: fit one by {way}, which tells if there can be none"
        )
    files.check_no_links(folder, [FOLDER], depth=1)
    try:
        record = files.read_json(path)
    except UserError as error:
        raise UserError(f"{path} is no JSON object: fit a temperature again by {way}") from error
    value: Any = record.get("temperature")
    if not isinstance(value, float) or not LIMITS[0] <= value <= LIMITS[1] or math.isnan(value):
        raise UserError(
            f"{path} has no temperature from {LIMITS[0]} to {LIMITS[1]:g}: fit one by {way}"
        )
    if record.get("state_sha256") != digest:
        raise UserError(f"{path} is of another checkpoint: fit its own by {way} --checkpoint=...")
    return value


def calibrated(task: Task, folder: Path, digest: str) -> Task:
    """A task whose logits are divided by the temperature of its checkpoint.

    Args:
      task: a classifier of one class or of independent labels per example.
      folder: the run folder.
      digest: SHA-256 of the checkpoint's state.

    Raises:
      UserError: the outputs are no logits, or as in `read`.
    """
    predict = task.predict
    if predict.kind not in ("logits", "labels"):
        raise UserError(f"--calibrated is for classifiers, and the outputs are {predict.kind}")
    value = read(folder, digest)
    divided = dataclasses.replace(predict, finish=lambda y: predict.finish(y) / value)
    return task._replace(predict=divided)
