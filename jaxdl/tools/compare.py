"""Side by side: what a run left that nothing interrupted, and one that was interrupted."""

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

# Of a run folder: what holds times, places or names of its own, and so is not compared as bytes.
UNLIKE = {"config.json", "environment.json", "metrics.jsonl", "summary.json", ".lock"}
UNLIKE |= {"checkpoints", "tensorboard", "profile"}


class Whole(NamedTuple):
    """The run that nothing interrupts."""

    lines: list[dict[str, Any]]  # of its log, without seconds
    summary: dict[str, Any]
    best: str  # digest of the best checkpoint's state
    files: dict[str, str]  # SHA-256 of pictures, `detours.json` and all else, by name
    seconds: float  # of its process
    startup: float  # seconds to the first line of the log
    save_every: int


class Interruption(NamedTuple):
    """A disturbance of a run, and its moment."""

    kind: str  # kill: -9; term: SIGTERM; fault: -9, then damage to the newest checkpoint
    moment: str  # one of MOMENTS
    step: int  # not before the log is there
    delay: float  # into the moment, as a share of how long it lasts


class Outcome(NamedTuple):
    """The effect of an interruption."""

    planned: Interruption
    began: int | None  # the step that its process went on from; None: it ended before it said so
    seen: int  # the last step in the log when it ended
    status: int  # as the operating system gives it: -9 after kill -9, 0 where it ended by itself
    durable: bool  # whether the newest checkpoint was whole then, and of no earlier step than seen


def results(run: Path) -> tuple[list[dict[str, Any]], dict[str, Any], str, dict[str, str]]:
    """A finished run's log without seconds, summary without times, best state's digest, files."""
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
    """SHA-256 by name of a run's files, but for those that are of one run alone."""
    names = {path: path.relative_to(run) for path in sorted(run.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path, name in names.items()
        if name.parts[0] not in UNLIKE
    }


def compare(
    folder: Path, whole: Whole, outcomes: list[Outcome], last: int | None, seconds: float
) -> list[str]:
    """Prints both runs side by side; returns what is not as it should be."""
    problems = []
    wanted = {"kill": -signal.SIGKILL, "fault": -signal.SIGKILL, "term": 128 + signal.SIGTERM}
    for outcome in outcomes:
        kind = outcome.planned.kind
        if outcome.status != wanted.get(kind, 0):
            problems.append(f"status {outcome.status} after {kind} by step {outcome.seen}")
        if kind == "term" and not outcome.durable:
            problems.append(f"no durable checkpoint after SIGTERM by step {outcome.seen}")
    rows = console.table(("", "whole", "interrupted", "verdict"), left=4)

    def row(name: str, one: Any, other: Any, verdict: str = "") -> None:
        same = "equal" if one == other else "DIFFERENT"
        if not verdict and one != other:
            problems.append(f"{name} differs")
        console.row(rows, (name, one, other, verdict or same))

    try:
        lines, summary, best, files = results(folder / "interrupted")
    except (UserError, KeyError) as error:
        return [*problems, str(error)]
    counted = [Counter(json.dumps(line) for line in each) for each in (whole.lines, lines)]
    lost, added = counted[0] - counted[1], counted[1] - counted[0]
    row("state_sha256", whole.summary["state_sha256"], summary["state_sha256"])
    row("best checkpoint", best[:16], best[:16] if best == whole.best else "another")
    if lines != whole.lines:
        problems.append(f"{lost.total()} lines lost, {added.total()} added in metrics.jsonl")
    row("log lines", len(whole.lines), len(lines), f"{lost.total()} lost, {added.total()} added")
    if summary != whole.summary:
        problems.append("summary.json differs")
    unlike = sorted(
        name for name in whole.files.keys() | files if whole.files.get(name) != files.get(name)
    )
    row("other files", len(whole.files), len(files), f"{len(unlike)} differ" if unlike else "equal")
    if unlike:
        problems.append(f"other files differ: {', '.join(unlike)}")
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


def lost_work(outcomes: list[Outcome], last: int | None) -> list[int]:
    """Steps that were in the log at an interruption, and made again after it.

    Faults are left out: they cost the work since the checkpoint before the one they hit.
    """
    lost, start = [], last or 0
    for outcome in reversed(outcomes):
        if outcome.planned.kind != "fault":
            lost.append(outcome.seen - start)
        start = start if outcome.began is None else outcome.began
    return lost
