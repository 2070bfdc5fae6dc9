"""Curve of a trial: its selection metric on validation, by step, as far as its run folder has it.

The log in a checkpoint counts, which is complete and under SHA-256. `metrics.jsonl` may lack its
last lines while a run is resumed, and is read only of a finished run without checkpoints.
"""

from pathlib import Path
from typing import Any, NamedTuple

from jaxdl.errors import UserError
from jaxdl.run import logger, metrics_log
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.finished import SUMMARY

VALIDATION = "validation"


class Curve(NamedTuple):
    """Evaluations of a trial.

    Attributes:
      metric: name of the selection metric; empty if the run has not said it.
      better: max or min.
      step: the step up to which the log has all lines; 0 before the first checkpoint.
      points: step and value of each evaluation; the value is None if it is not finite.
      record: record of the checkpoint; empty without one.
    """

    metric: str
    better: str
    step: int
    points: list[tuple[int, float | None]]
    record: dict[str, Any]

    def last(self, step: int) -> float | None:
        """Returns the value of the last evaluation up to a step; None if it is not finite.

        >>> curve = Curve("loss", "min", 30, [(10, 0.5), (20, 0.2), (30, 0.3)], {})
        >>> curve.last(30), curve.best(30), curve.best(19)
        (0.3, 0.2, 0.5)
        """
        values = [value for at, value in self.points if at <= step]
        return values[-1] if values else None

    def best(self, step: int) -> float | None:
        """Returns the best value up to a step; None if none is finite."""
        values = [value for at, value in self.points if at <= step and value is not None]
        return (max if self.better == "max" else min)(values) if values else None

    def has_points(self, step: int) -> bool:
        """Returns True if the run was evaluated up to a step."""
        return any(at <= step for at, _ in self.points)


def read(folder: Path) -> Curve:
    """Reads the curve of a trial, which may be running.

    Args:
      folder: the run folder, which need not exist.

    Raises:
      UserError: the summary or a log under SHA-256 is not what a run writes.
    """
    checkpoint = Checkpoints(folder / "checkpoints").newest_log()
    record: dict[str, Any] = {}
    lines: list[metrics_log.Line] = []
    step = 0
    if checkpoint:
        record, log = checkpoint
        lines, is_valid = metrics_log.parse(log)
        if not is_valid:
            raise UserError(f"the log in {folder}/checkpoints is not what a run writes: delete it")
        step = record["step"] if record["logged"] else record["step"] - 1
    name, better = record.get("metric") or ("", "")
    if (folder / SUMMARY).exists() and not name:
        summary = logger.read_summary(folder)
        name, better = str(summary.get("best_metric", "")), str(summary.get("better", ""))
        lines = lines or logger.read_metrics(folder)
        step = max((line["step"] for line in lines), default=0)
    points = [
        (line["step"], line[name] if metrics_log.is_result(line[name]) else None)
        for line in lines
        if line["split"] == VALIDATION and name in line and line["step"] <= step
    ]
    return Curve(name, better, step, points, record)
