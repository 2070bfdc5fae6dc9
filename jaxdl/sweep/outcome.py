"""Outcome of a trial, as the files in its run folder have it."""

from pathlib import Path
from typing import Any

from jaxdl import saved_config
from jaxdl.errors import UserError
from jaxdl.run import logger, metrics_log, workdir
from jaxdl.sweep import curve


def folder_of(line: dict[str, Any]) -> Path:
    """Run folder of a trial."""
    return Path(line["workdir"])


def result(line: dict[str, Any]) -> dict[str, Any] | None:
    """Result of a trial, from the files in its run folder.

    Returns:
      None if the trial is neither done nor paused where it is to pause. Otherwise entries of the
      ledger: `state`, `step`, `metric` (name of the selection metric), `value` (of the best state
      on validation), `tested` (the same metric of that state on the test split), `better` (max or
      min) and `seconds`. `metric`, `value` and `tested` are None if the run was never evaluated,
      and `tested` is None if it is paused.

    Raises:
      UserError: the run folder cannot be read, or holds another run.
    """
    folder = folder_of(line)
    if not (folder / "summary.json").exists():
        return _paused(line, folder) if line.get("pause_at") else None
    remedy = "delete this file, and the trial writes it again from its checkpoint"
    try:
        summary = logger.read_summary(folder)
    except UserError as error:
        raise UserError(
            f"{folder}/summary.json cannot be read, or is not what the run wrote: {remedy}"
        ) from error
    try:
        config, _ = workdir.read_config(folder, workdir.config_in_checkpoints(folder), ())
    except UserError as error:
        raise UserError(
            f"{folder} has no config that can be read: delete it, and the trial runs again"
        ) from error
    _check_config(line, config)
    name = f"validation/{summary.get('best_metric')}"
    numbers = {
        "value": summary.get(f"best/{name}"),
        "tested": summary.get(f"best/test/{summary.get('best_metric')}"),
        "seconds": summary.get("seconds", 0.0),
    }
    if not all(number is None or metrics_log.is_result(number) for number in numbers.values()):
        raise UserError(f"{folder}/summary.json has results that are not numbers: {remedy}")
    metric = None if numbers["value"] is None else name
    step = summary.get("step", 0)
    if type(step) is not int:
        raise UserError(f"{folder}/summary.json has a step that is none: {remedy}")
    about = {"state": "done", "step": step, "metric": metric, "better": summary.get("better")}
    return about | numbers


def _paused(line: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """Result of a trial that pauses; None if it has not come there."""
    found = curve.read(folder)
    if found.step < line["pause_at"]:
        return None
    _check_config(line, workdir.config_of_record(found.record))
    value = found.best(found.step)
    return {
        "state": "paused",
        "step": found.step,
        "metric": None if value is None else f"{curve.VALIDATION}/{found.metric}",
        "better": found.better,
        "value": value,
        "tested": None,
        "seconds": found.record["seconds"],
    }


def _check_config(line: dict[str, Any], config: dict[str, Any]) -> None:
    """Checks that the config in a run folder is that of the trial.

    Raises:
      UserError: it is another.
    """
    if saved_config.differences(line["config"], {n: config.get(n) for n in line["config"]}):
        raise UserError(
            f"{line['workdir']} holds the run of another config: delete it, or move it away"
        )
