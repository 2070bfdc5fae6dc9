"""The proof: a run that is interrupted again and again ends in the same bits as one that is not.

Processes are started, watched through what they write, and killed from outside, as the world does.
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
from jaxdl.tools.compare import Interruption, Outcome, Whole, compare, results

RUNS = ("whole", "interrupted")
KINDS = ("kill", "term", "fault")
MOMENTS = ("start", "step", "save", "deletion", "evaluation", "log", "end")
LASTS = {"save": 0.03, "deletion": 0.003, "log": 0.001}  # seconds; others: as the whole run shows
LOOK_EVERY = 0.0003  # seconds: a deletion takes a few thousandths
BEGUN = re.compile(r"^run folder: .*?(?:, going on from step ([\d,]+))?$", re.MULTILINE)


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
    problems = compare(folder, whole, outcomes, _begun(folder), seconds)
    if problems:
        raise TrainingError(f"not as without interruption: {'; '.join(problems)}; see {folder}")


def _run_whole(command: list[str], folder: Path) -> Whole:
    began = time.monotonic()
    process = _start(command, folder, "whole")
    try:
        while process.poll() is None and not logger.read_metrics(folder / "whole"):
            time.sleep(0.02)
        startup = time.monotonic() - began
        process.wait()
    finally:
        process.kill()
    if process.returncode:
        last = _said(folder).splitlines()[-1:]
        raise UserError(f"{' '.join(command[1:])}: status {process.returncode} ({' '.join(last)})")
    seconds = time.monotonic() - began
    found = folder / "whole"
    if not (found / "summary.json").exists():
        raise UserError(f"{' '.join(command[1:])} left no summary.json: name an experiment")
    lines, summary, best, others = results(found)
    epoch = round(lines[-1]["step"] / lines[-1]["epoch"])
    save_every = files.read_json(found / "config.json")["checkpoint_every"] or epoch
    return Whole(lines, summary, best, others, seconds, startup, save_every)


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
    with (folder / "stderr.txt").open("wb") as errors:
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
            last = (logger.read_metrics(run) or [{"step": 0, "split": ""}])[-1]
            if last["step"] >= planned.step and _is_now(planned.moment, run, last, evaluated):
                break
            size = now
        time.sleep(planned.delay * lasts)
        process.send_signal(signal.SIGTERM if planned.kind == "term" else signal.SIGKILL)
        process.wait(timeout=60 + 2 * whole.startup)
    finally:
        process.kill()
        process.wait()
    lines = logger.read_metrics(run)
    seen = lines[-1]["step"] if lines else 0
    return Outcome(planned, _begun(folder), seen, process.returncode, _is_durable(run, seen))


def _is_now(moment: str, run: Path, last: dict[str, Any], evaluated: set[int]) -> bool:
    if moment in ("save", "deletion"):
        pattern = ".checkpoints-part-*" if moment == "save" else "checkpoints/old-*"
        return any(run.glob(pattern))
    return moment != "evaluation" or (last["split"] == "train" and last["step"] in evaluated)


def _begun(folder: Path) -> int | None:
    """The step that the process which wrote stderr.txt went on from; None: it has not begun."""
    found = BEGUN.search(_said(folder))
    return int((found[1] or "0").replace(",", "")) if found else None


def _said(folder: Path) -> str:
    """Output of the newest process, which is in the encoding of its locale."""
    return (folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


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
    return f"{path.name}: {fault_injection.damage(path, chance)}"
