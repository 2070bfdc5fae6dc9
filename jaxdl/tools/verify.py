"""The `verify` command: an interrupted run must end in the same bits as an uninterrupted one.

Runs are separate processes. They are observed through the files that they write, and are killed by
signals, as in a real failure.
"""

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jaxdl import files
from jaxdl.console import say
from jaxdl.errors import TrainingError, UserError
from jaxdl.run import logger
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.checkpoint_record import DamagedError
from jaxdl.tools import fault_injection
from jaxdl.tools.interrupted import Interruption, Outcome, Whole, compare, results

RUNS = ("whole", "interrupted")
KINDS = ("kill", "term", "fault")
MOMENTS = ("start", "step", "save", "deletion", "evaluation", "log", "end")
# Durations of moments in seconds; those of the others are measured in the uninterrupted run.
DURATIONS = {"save": 0.03, "deletion": 0.003, "log": 0.001}
POLL_SECONDS = 0.0003  # a deletion takes a few milliseconds
BEGUN = re.compile(r"^run folder: .*?(?:, going on from step ([\d,]+))?$", re.MULTILINE)


def verify(
    experiment: str, flags: list[str], folder: Path, counts: dict[str, int], seed: int
) -> None:
    """Runs an experiment uninterrupted and interrupted, and compares the results.

    Args:
      experiment: module name, such as `experiments.cifar_vgg`.
      flags: flags of the experiment.
      folder: parent of the two run folders, `whole` and `interrupted`.
      counts: number of interruptions of each of `KINDS`.
      seed: seed of the interruptions' moments.

    Raises:
      UserError: the experiment does not run with these flags.
      TrainingError: the runs differ, or the run did not survive an interruption.
    """
    if any(flag.lstrip("-").split("=")[0] in ("workdir", "resume", "pause_at") for flag in flags):
        raise UserError("verify sets --workdir and --resume for its runs: leave them out")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--workdir={folder} is not empty: give a new or empty one")
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", experiment, *flags]
    whole = _run_whole(command, folder)
    say(f"without interruption: {whole.summary['step']} steps in {whole.seconds:.1f} s")
    generator = random.Random(seed)
    outcomes: list[Outcome] = []
    began = time.monotonic()
    for number, planned in enumerate(_plan(counts, whole, generator), 1):
        outcome = _interrupt(command, folder, planned, whole)
        while outcome.status == 0 and planned.delay > 0.001:
            # The run had finished: start it again, and interrupt its end, earlier each time.
            planned = planned._replace(moment="end", delay=planned.delay / 3)
            outcome = _interrupt(command, folder, planned, whole)
        outcomes.append(outcome)
        text = f"{number}: {planned.kind}, {outcome.planned.moment}, by step {outcome.seen}"
        if planned.kind == "fault":
            text += f"; {_damage_newest(folder / 'interrupted', generator)}"
        say(text)
    process = _start(command, folder, "interrupted")
    if process.wait():
        outcomes.append(Outcome(Interruption("none", "end", 0, 0), 0, 0, process.returncode, False))
    seconds = time.monotonic() - began
    problems = compare(folder, whole, outcomes, _begun(folder), seconds)
    if problems:
        raise TrainingError(f"not as without interruption: {'; '.join(problems)}; see {folder}")


def _run_whole(command: list[str], folder: Path) -> Whole:
    """Runs the experiment uninterrupted, and measures its durations."""
    start_time = time.monotonic()
    process = _start(command, folder, "whole")
    try:
        while process.poll() is None and not logger.read_metrics(folder / "whole"):
            time.sleep(0.02)
        startup = time.monotonic() - start_time
        process.wait()
    finally:
        process.kill()
    if process.returncode:
        last = _stderr(folder).splitlines()[-1:]
        raise UserError(f"{' '.join(command[1:])}: status {process.returncode} ({' '.join(last)})")
    seconds = time.monotonic() - start_time
    run = folder / "whole"
    if not (run / "summary.json").exists():
        raise UserError(f"{' '.join(command[1:])} left no summary.json: name an experiment")
    lines, summary, best, other_files = results(run)
    epoch = round(lines[-1]["step"] / lines[-1]["epoch"])
    save_every = files.read_json(run / "config.json")["checkpoint_every"] or epoch
    return Whole(lines, summary, best, other_files, seconds, startup, save_every)


def _plan(counts: dict[str, int], whole: Whole, generator: random.Random) -> list[Interruption]:
    """Plans interruptions, in the order of the steps that they wait for."""
    planned = []
    for kind in KINDS:
        for number in range(counts[kind]):
            moment = MOMENTS[number % len(MOMENTS)]
            step = generator.randrange(whole.summary["step"])
            step = {"start": 0, "end": whole.summary["step"]}.get(moment, step)
            planned.append(Interruption(kind, moment, step, generator.random()))
    starts = [p for p in planned if p.moment == "start"]
    ordered = sorted((p for p in planned if p.moment != "start"), key=lambda p: p.step)
    for start in starts:  # a start may be interrupted at any point of the sequence
        ordered.insert(generator.randint(0, len(ordered)), start)
    return ordered


def _start(command: list[str], folder: Path, name: str) -> "subprocess.Popen[bytes]":
    with (folder / "stderr.txt").open("wb") as errors:
        return subprocess.Popen(
            [*command, f"--workdir={folder / name}"], stdout=subprocess.DEVNULL, stderr=errors
        )


def _interrupt(command: list[str], folder: Path, planned: Interruption, whole: Whole) -> Outcome:
    """Starts the run, and sends it a signal at the planned moment."""
    process = _start(command, folder, "interrupted")
    duration = DURATIONS.get(planned.moment, whole.seconds / max(len(whole.lines), 1))
    if planned.moment == "start":
        duration = whole.startup
    evaluated = {line["step"] for line in whole.lines if line["split"] == "validation"}
    run = folder / "interrupted"
    try:
        size = None
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            # SIGTERM asks for a checkpoint, so it waits for the run to begin; SIGKILL does not.
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
            last = (logger.read_metrics(run) or [{"step": 0, "split": ""}])[-1]
            if last["step"] >= planned.step and _is_now(planned.moment, run, last, evaluated):
                break
            size = now
        time.sleep(planned.delay * duration)
        process.send_signal(signal.SIGTERM if planned.kind == "term" else signal.SIGKILL)
        process.wait(timeout=60 + 2 * whole.startup)
    finally:
        process.kill()
        process.wait()
    lines = logger.read_metrics(run)
    seen = lines[-1]["step"] if lines else 0
    return Outcome(planned, _begun(folder), seen, process.returncode, _is_durable(run, seen))


def _is_now(moment: str, run: Path, last: dict[str, Any], evaluated: set[int]) -> bool:
    """Returns True if the run is at that moment, judging by its files."""
    if moment in ("save", "deletion"):
        pattern = ".checkpoints-part-*" if moment == "save" else "checkpoints/old-*"
        return any(run.glob(pattern))
    return moment != "evaluation" or (last["split"] == "train" and last["step"] in evaluated)


def _begun(folder: Path) -> int | None:
    """Step from which the newest process resumed; None if it has not printed it yet."""
    match = BEGUN.search(_stderr(folder))
    return int((match[1] or "0").replace(",", "")) if match else None


def _stderr(folder: Path) -> str:
    """Error output of the newest process, which is in the encoding of its locale."""
    return (folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_durable(run: Path, seen: int) -> bool:
    """Returns True if the newest checkpoint is valid, and not older than step `seen`."""
    checkpoints = Checkpoints(run / "checkpoints")
    steps = checkpoints.steps()
    try:
        return bool(steps) and steps[-1] >= seen and bool(checkpoints.read(steps[-1]))
    except DamagedError:
        return False


def _damage_newest(run: Path, generator: random.Random) -> str:
    """Damages the newest checkpoint, unless it is the only one."""
    steps = Checkpoints(run / "checkpoints").steps()
    if len(steps) < 2:
        return "no damage, as there is no other checkpoint yet"
    path = run / "checkpoints" / str(steps[-1])
    return f"{path.name}: {fault_injection.damage(path, generator)}"
