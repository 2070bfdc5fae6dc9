"""Comparison of an uninterrupted run and an interrupted one, for `jaxdl verify`."""

import hashlib
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl import console
from jaxdl.errors import UserError
from jaxdl.run import logger
from jaxdl.run.checkpoint import Checkpoints

# Entries of a run folder with times, paths or random names, which are not compared as bytes.
UNLIKE = {"config.json", "environment.json", "metrics.jsonl", "summary.json", ".lock"}
UNLIKE |= {"checkpoints", "profile", "tensorboard", "wandb", "mlflow", "tracker_id.txt"}


class Whole(NamedTuple):
    """Results and timings of the uninterrupted run.

    Attributes:
      lines: lines of `metrics.jsonl`, without seconds.
      summary: `summary.json`, without times.
      best: SHA-256 of the best checkpoint's state.
      files: SHA-256 of all other files, by name.
      seconds: duration of its process.
      startup: seconds from the start of the process to the first line of the log.
      save_every: steps between checkpoints.
    """

    lines: list[dict[str, Any]]
    summary: dict[str, Any]
    best: str
    files: dict[str, str]
    seconds: float
    startup: float
    save_every: int


class Interruption(NamedTuple):
    """A planned interruption of a run.

    Attributes:
      kind: kill (SIGKILL), term (SIGTERM) or fault (SIGKILL, then a damaged newest checkpoint).
      moment: one of `verify.MOMENTS`.
      step: step that the log must have reached.
      delay: time to wait within the moment, as a fraction of the moment's duration.
    """

    kind: str
    moment: str
    step: int
    delay: float


class Outcome(NamedTuple):
    """Effect of an interruption.

    Attributes:
      planned: the interruption.
      began: step from which the process resumed; None if it ended before it printed that step.
      seen: last step in the log when the process ended.
      status: return code of the process: -9 after SIGKILL, 0 if it finished.
      durable: whether the newest checkpoint was valid then, and not older than `seen`.
    """

    planned: Interruption
    began: int | None
    seen: int
    status: int
    durable: bool


def results(run: Path) -> tuple[list[dict[str, Any]], dict[str, Any], str, dict[str, str]]:
    """Reads the comparable results of a finished run.

    Returns:
      The lines of its log without seconds, its summary without times, the SHA-256 of its best
      state, and the SHA-256 of its other files by name.

    Raises:
      UserError: a file of the run cannot be read.
    """
    lines = [
        {name: value for name, value in line.items() if name != "seconds"}
        for line in logger.read_metrics(run)
    ]
    summary = logger.read_summary(run)
    for name in ("seconds", "examples_per_second", "flops_per_second", "share_of_peak"):
        summary.pop(name, None)
    best, _ = Checkpoints(run / "checkpoints").read(summary["best_step"])
    return lines, summary, best["state_sha256"], _files(run)


def _files(run: Path) -> dict[str, str]:
    """SHA-256 by name of a run's files, except those in `UNLIKE`."""
    names = {path: path.relative_to(run) for path in sorted(run.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path, name in names.items()
        if name.parts[0] not in UNLIKE
    }


def compare(
    folder: Path, whole: Whole, outcomes: list[Outcome], last: int | None, seconds: float
) -> list[str]:
    """Prints a table of both runs.

    Args:
      folder: folder of both runs.
      whole: results of the uninterrupted run.
      outcomes: the interruptions of the other run.
      last: step from which the last process of that run resumed.
      seconds: duration of all its processes together.

    Returns:
      A text for each difference or failed interruption.
    """
    problems = _failed_interruptions(outcomes)
    rows = console.table(("", "whole", "interrupted", "verdict"), left=4)

    def row(name: str, left: Any, right: Any, verdict: str = "") -> None:
        if not verdict and left != right:
            problems.append(f"{name} differs")
        equality = "equal" if left == right else "DIFFERENT"
        console.row(rows, (name, left, right, verdict or equality))

    try:
        lines, summary, best, files = results(folder / "interrupted")
    except (UserError, KeyError) as error:
        return [*problems, str(error)]
    before, after = (Counter(map(json.dumps, log)) for log in (whole.lines, lines))
    lost, added = before - after, after - before
    row("state_sha256", whole.summary["state_sha256"], summary["state_sha256"])
    row("best checkpoint", best[:16], best[:16] if best == whole.best else "another")
    if lines != whole.lines:
        problems.append(f"{lost.total()} lines lost, {added.total()} added in metrics.jsonl")
    row("log lines", len(whole.lines), len(lines), f"{lost.total()} lost, {added.total()} added")
    if summary != whole.summary:
        problems.append("summary.json differs")
    differing = sorted(
        name for name in whole.files.keys() | files if whole.files.get(name) != files.get(name)
    )
    row(
        "other files",
        len(whole.files),
        len(files),
        f"{len(differing)} differ" if differing else "equal",
    )
    if differing:
        problems.append(f"other files differ: {', '.join(differing)}")
    most = max(lost_work(outcomes, last), default=0)
    row("most steps lost", "-", most, f"{most / whole.save_every:.2f} of a save interval")
    goodput = f"goodput {whole.seconds / seconds:.2f}"
    row("seconds", round(whole.seconds, 1), round(seconds, 1), goodput)
    console.console().print(rows)
    kinds = Counter(o.planned.kind for o in outcomes)
    moments = Counter(o.planned.moment for o in outcomes)
    print("interrupted by " + ", ".join(f"{n} {k}" for k, n in kinds.items()), end="; at ")
    print(", ".join(f"{moment} {n}" for moment, n in moments.items()))
    return problems


def _failed_interruptions(outcomes: list[Outcome]) -> list[str]:
    """Problems of interruptions: a wrong exit status, or no durable checkpoint after SIGTERM."""
    problems = []
    expected = {"kill": -signal.SIGKILL, "fault": -signal.SIGKILL, "term": 128 + signal.SIGTERM}
    for outcome in outcomes:
        kind = outcome.planned.kind
        if outcome.status != expected.get(kind, 0):
            problems.append(f"status {outcome.status} after {kind} by step {outcome.seen}")
        if kind == "term" and not outcome.durable:
            problems.append(f"no durable checkpoint after SIGTERM by step {outcome.seen}")
    return problems


def lost_work(outcomes: list[Outcome], last: int | None) -> list[int]:
    """Steps that were repeated after each interruption.

    Faults are left out: they also lose the work since the checkpoint before the damaged one.

    Args:
      outcomes: the interruptions, in order.
      last: step from which the last process resumed.

    Returns:
      For each interruption, the steps in the log when it came minus the step that the run resumed
      from; newest first.
    """
    lost, start = [], last or 0
    for outcome in reversed(outcomes):
        if outcome.planned.kind != "fault":
            lost.append(outcome.seen - start)
        start = start if outcome.began is None else outcome.began
    return lost
