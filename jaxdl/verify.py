"""The proof: a run that is interrupted again and again ends in the same bits as one that is not.

Processes are started, watched through what they write, and killed from outside, as the world does.
"""

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from jaxdl import faults, files, record
from jaxdl.checkpoint import Checkpoints, DamagedError
from jaxdl.errors import TrainingError, UserError
from jaxdl.progress import say

RUNS = ("whole", "interrupted")
KINDS = ("kill", "term", "fault")
MOMENTS = ("start", "step", "save", "deletion", "evaluation", "log", "end")
LASTS = {"save": 0.03, "deletion": 0.003, "log": 0.001}  # seconds; others: as the whole run shows
LOOK_EVERY = 0.0003  # seconds: a deletion takes a few thousandths
BEGUN = re.compile(r"^run folder: .*?(?:, going on from step ([\d,]+))?$", re.MULTILINE)


class Whole(NamedTuple):
    """The run that nothing interrupts."""

    lines: list[dict[str, Any]]  # of its log, without seconds
    summary: dict[str, Any]
    best: str  # digest of the best checkpoint's state
    seconds: float  # of its process
    startup: float  # seconds to the first line of the log
    save_every: int


class Interruption(NamedTuple):
    """What is done to a run, and when."""

    kind: str  # kill: -9; term: SIGTERM; fault: -9, then damage to the newest checkpoint
    moment: str  # one of MOMENTS
    step: int  # not before the log is there
    delay: float  # into the moment, as a share of how long it lasts


class Outcome(NamedTuple):
    """What an interruption did."""

    planned: Interruption
    began: int | None  # the step that its process went on from; None: it ended before it said so
    seen: int  # the last step in the log when it ended
    status: int  # as the operating system gives it: -9 after kill -9, 0 where it ended by itself
    durable: bool  # whether the newest checkpoint was whole then, and of no earlier step than seen


def verify(
    experiment: str, flags: list[str], folder: Path, counts: dict[str, int], seed: int
) -> None:
    """Runs an experiment whole and interrupted, compares what they leave, and prints a verdict.

    Args:
      experiment: module, such as `experiments.cifar_vgg`.
      flags: of the experiment.
      folder: for the two run folders, `whole` and `interrupted`.
      counts: how many interruptions of each of KINDS.
      seed: of what is done when.

    Raises:
      UserError: the experiment does not run with these flags.
      TrainingError: the runs differ, or an interruption was not survived.
    """
    if any(flag.lstrip("-").split("=")[0] in ("workdir", "resume") for flag in flags):
        raise UserError("verify gives --workdir and --resume to the runs itself: leave them out")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--workdir={folder} is not empty: give a new or empty one")
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", experiment, *flags]
    whole = _run_whole(command, folder)
    say(f"without interruption: {whole.summary['step']} steps in {whole.seconds:.1f} s")
    chance = random.Random(seed)
    outcomes: list[Outcome] = []
    began = time.monotonic()
    for number, planned in enumerate(_plan(counts, whole, chance), 1):
        outcome = _interrupt(command, folder, planned, whole)
        while outcome.status == 0 and planned.delay > 0.001:
            # It had ended before: start it again, and interrupt its end, earlier each time.
            planned = planned._replace(moment="end", delay=planned.delay / 3)
            outcome = _interrupt(command, folder, planned, whole)
        outcomes.append(outcome)
        text = f"{number}: {planned.kind}, {outcome.planned.moment}, by step {outcome.seen}"
        if planned.kind == "fault":
            text += f"; {_damage_newest(folder / 'interrupted', chance)}"
        say(text)
    process = _start(command, folder, "interrupted")
    if process.wait():
        outcomes.append(Outcome(Interruption("none", "end", 0, 0), 0, 0, process.returncode, False))
    seconds = time.monotonic() - began
    problems = _compare(folder, whole, outcomes, _begun(folder), seconds)
    if problems:
        raise TrainingError(f"not as without interruption: {'; '.join(problems)}; see {folder}")


def _run_whole(command: list[str], folder: Path) -> Whole:
    began = time.monotonic()
    process = _start(command, folder, "whole")
    try:
        while process.poll() is None and not record.read_metrics(folder / "whole"):
            time.sleep(0.02)
        startup = time.monotonic() - began
        process.wait()
    finally:
        process.kill()
    if process.returncode:
        last = (folder / "stderr.txt").read_text().splitlines()[-1:]
        raise UserError(f"{' '.join(command[1:])}: status {process.returncode} ({' '.join(last)})")
    seconds = time.monotonic() - began
    found = folder / "whole"
    if not (found / "summary.json").exists():
        raise UserError(f"{' '.join(command[1:])} left no summary.json: name an experiment")
    lines, summary, best = _results(found)
    epoch = round(lines[-1]["step"] / lines[-1]["epoch"])
    save_every = files.read_json(found / "config.json")["checkpoint_every"] or epoch
    return Whole(lines, summary, best, seconds, startup, save_every)


def _plan(counts: dict[str, int], whole: Whole, chance: random.Random) -> list[Interruption]:
    """Interruptions in the order of the steps that they wait for."""
    planned = []
    for kind in KINDS:
        for number in range(counts[kind]):
            moment = MOMENTS[number % len(MOMENTS)]
            step = chance.randrange(whole.summary["step"])
            step = {"start": 0, "end": whole.summary["step"]}.get(moment, step)
            planned.append(Interruption(kind, moment, step, chance.random()))
    starts = [p for p in planned if p.moment == "start"]
    rest = sorted((p for p in planned if p.moment != "start"), key=lambda p: p.step)
    for start in starts:  # anywhere between the others
        rest.insert(chance.randint(0, len(rest)), start)
    return rest


def _start(command: list[str], folder: Path, name: str) -> "subprocess.Popen[bytes]":
    with (folder / "stderr.txt").open("w") as errors:
        return subprocess.Popen(
            [*command, f"--workdir={folder / name}"], stdout=subprocess.DEVNULL, stderr=errors
        )


def _interrupt(command: list[str], folder: Path, planned: Interruption, whole: Whole) -> Outcome:
    process = _start(command, folder, "interrupted")
    lasts = LASTS.get(planned.moment, whole.seconds / max(len(whole.lines), 1))
    if planned.moment == "start":
        lasts = whole.startup
    evaluated = {line["step"] for line in whole.lines if line["split"] == "validation"}
    run = folder / "interrupted"
    try:
        size = None
        while process.poll() is None:
            time.sleep(LOOK_EVERY)
            # SIGTERM asks for a checkpoint, so there must be a run; kill -9 comes at any time.
            if planned.moment == "start" and planned.kind != "term":
                break
            if _begun(folder) is None:
                continue
            if planned.moment == "start":
                break
            now = _size(run / "metrics.jsonl")
            if size is None or (now == size and planned.moment in ("log", "evaluation")):
                size = now if size is None else size
                continue
            last = (record.read_metrics(run) or [{"step": 0, "split": ""}])[-1]
            if last["step"] >= planned.step and _is_now(planned.moment, run, last, evaluated):
                break
            size = now
        time.sleep(planned.delay * lasts)
        process.send_signal(signal.SIGTERM if planned.kind == "term" else signal.SIGKILL)
        process.wait(timeout=60 + 2 * whole.startup)
    finally:
        process.kill()
        process.wait()
    lines = record.read_metrics(run)
    seen = lines[-1]["step"] if lines else 0
    return Outcome(planned, _begun(folder), seen, process.returncode, _is_durable(run, seen))


def _is_now(moment: str, run: Path, last: dict[str, Any], evaluated: set[int]) -> bool:
    if moment in ("save", "deletion"):
        pattern = "part-*" if moment == "save" else "old-*"
        return any((run / "checkpoints").glob(pattern))
    return moment != "evaluation" or (last["split"] == "train" and last["step"] in evaluated)


def _begun(folder: Path) -> int | None:
    """The step that the process which wrote stderr.txt went on from; None: it has not begun."""
    found = BEGUN.search((folder / "stderr.txt").read_text())
    return int((found[1] or "0").replace(",", "")) if found else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _lost_work(outcomes: list[Outcome], last: int | None) -> list[int]:
    """Steps that were in the log at an interruption, and made again after it.

    Faults are left out: they cost the work since the checkpoint before the one they hit.
    """
    lost, start = [], last or 0
    for outcome in reversed(outcomes):
        if outcome.planned.kind != "fault":
            lost.append(outcome.seen - start)
        start = start if outcome.began is None else outcome.began
    return lost


def _is_durable(run: Path, seen: int) -> bool:
    checkpoints = Checkpoints(run / "checkpoints")
    steps = checkpoints.steps()
    try:
        return bool(steps) and steps[-1] >= seen and bool(checkpoints.read(steps[-1]))
    except DamagedError:
        return False


def _damage_newest(run: Path, chance: random.Random) -> str:
    steps = Checkpoints(run / "checkpoints").steps()
    if len(steps) < 2:
        return "spared, for no other checkpoint is there yet"
    path = run / "checkpoints" / str(steps[-1])
    return f"{path.name}: {faults.damage(path, chance)}"


def _results(run: Path) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """A finished run's log without seconds, summary without times, and digest of the best state."""
    lines = [
        {name: value for name, value in line.items() if name != "seconds"}
        for line in record.read_metrics(run)
    ]
    summary = record.read_summary(run)
    for name in ("seconds", "examples_per_second", "flops_per_second", "share_of_peak"):
        summary.pop(name, None)
    best, _ = Checkpoints(run / "checkpoints").read(summary["best_step"])
    return lines, summary, best["state_sha256"]


def _compare(
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
    table = Table(box=None, pad_edge=False)
    for name in ("", "whole", "interrupted", "verdict"):
        table.add_column(name)

    def row(name: str, one: Any, other: Any, verdict: str = "") -> None:
        same = "equal" if one == other else "DIFFERENT"
        if not verdict and one != other:
            problems.append(f"{name} differs")
        table.add_row(name, str(one), str(other), verdict or same)

    try:
        lines, summary, best = _results(folder / "interrupted")
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
    most = max(_lost_work(outcomes, last), default=0)
    row("most steps lost", "-", most, f"{most / whole.save_every:.2f} of a save interval")
    goodput = f"goodput {whole.seconds / seconds:.2f}"
    row("seconds", round(whole.seconds, 1), round(seconds, 1), goodput)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    kinds = Counter(o.planned.kind for o in outcomes)
    moments = Counter(o.planned.moment for o in outcomes)
    print("interrupted by " + ", ".join(f"{n} {k}" for k, n in kinds.items()), end="; at ")
    print(", ".join(f"{moment} {n}" for moment, n in moments.items()))
    return problems
