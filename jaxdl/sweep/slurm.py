"""Trials as a job array of Slurm, whose hosts share the sweep's folder under the same path.

Slurm keeps the queue, so the driver ends when it has handed its trials in. Started again it asks
what is still queued: what is neither queued nor done has failed, and the next start hands it in.
Partition, time and account are set as for any job, by variables such as SBATCH_PARTITION and
SBATCH_TIMELIMIT.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from jaxdl import files
from jaxdl.console import say
from jaxdl.errors import UserError
from jaxdl.sweep import ledger as ledgers
from jaxdl.sweep.ledger import Ledger

FOLDER = "slurm"


def submit(ledger: Ledger, names: list[str], jobs: int, cpus: int, gpus: int) -> None:
    """Hands in the trials that Slurm does not have yet.

    Args:
      ledger: of the sweep.
      names: of the trials that are not done.
      jobs: trials at a time; 0: as many as there is room for.
      cpus: of a trial.
      gpus: of a trial.
    """
    digest = hashlib.sha256(str(ledger.folder).encode()).hexdigest()[:8]
    queued = _queued(ledger.folder / FOLDER, f"jaxdl-{digest}")
    missing = []
    for name in names:
        line = ledger.lines[name]
        if name in queued:
            line["state"] = "queued"
        elif line["state"] == "queued":
            ledgers.ended(ledger, name, None, again=False)
        else:
            missing.append(name)
    if missing:
        folder = ledger.folder / FOLDER
        folder.mkdir(exist_ok=True)
        number = len(list(folder.glob("*.jsonl")))
        path = folder / f"{number}.jsonl"
        lines = (json.dumps(ledger.lines[name]) + "\n" for name in missing)
        files.write_text(path, "".join(lines))
        room = [f"--cpus-per-task={cpus}", *([f"--gpus-per-task={gpus}"] if gpus else [])]
        at_once = f"%{jobs}" if jobs else ""
        command = [
            *("sbatch", "--parsable", f"--job-name=jaxdl-{digest}-{number}", "--requeue"),
            *(f"--array=0-{len(missing) - 1}{at_once}", "--ntasks=1", *room),
            f"--chdir={os.getcwd()}",
            f"--output={folder}/%A_%a.log",
        ]
        try:
            job = _ask(command, script(path)).strip()
        except UserError:
            path.unlink()
            raise
        for name in missing:
            line = ledger.lines[name]
            line.update(state="queued", job=job, starts=line["starts"] + 1)
        say(f"{len(missing)} trials handed in as Slurm's job {job}")
    ledger.write()
    if any(ledger.lines[name]["state"] == "queued" for name in names):
        say("the same command shows how they stand")


def check() -> None:
    """Refuses early where there is no Slurm.

    Raises:
      UserError: there is none.
    """
    for name in ("sbatch", "squeue"):
        if not shutil.which(name):
            raise UserError(f"--engine=slurm: {name} is not here: start it where Slurm is")


def script(path: Path) -> str:
    """Shell script of a task of the array."""
    words = shlex.join([sys.executable, "-m", "jaxdl.sweep.slurm", str(path)])
    return f'#!/bin/sh\nexec {words} "$SLURM_ARRAY_TASK_ID"\n'


def _queued(folder: Path, job: str) -> set[str]:
    """Names of the trials that Slurm has, running or waiting."""
    found = set()
    for line in _ask(["squeue", "--noheader", "--array", "--format=%j %K"]).splitlines():
        name, _, task = line.strip().partition(" ")
        if name.rpartition("-")[0] == job:
            path = folder / f"{name.rpartition('-')[2]}.jsonl"
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
                found.add(json.loads(lines[int(task)])["trial"])
            except (OSError, ValueError, IndexError, TypeError, KeyError) as error:
                raise UserError(
                    f"{path}, which says what Slurm's job {name} runs, cannot be read: scancel "
                    f"--name={name}, or bring it back"
                ) from error
    return found


def _ask(command: list[str], text: str = "") -> str:
    asked = subprocess.run(
        command, input=text, capture_output=True, encoding="utf-8", errors="replace"
    )
    if asked.returncode:
        words = " ".join(asked.stderr.split())[:300]
        raise UserError(f"--engine=slurm: {command[0]} says: {words or asked.returncode}")
    return asked.stdout


def main(path: str, number: str) -> None:
    """Becomes the process of a trial, unless it is done or another process runs it."""
    line = json.loads(Path(path).read_text(encoding="utf-8").splitlines()[int(number)])
    with ledgers.claim(line) as log:
        if log is None:
            sys.exit(f"{line['trial']} runs already: see {line['log']}")
        if not ledgers.result(line):
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            os.execv(sys.executable, ledgers.argv(line))


if __name__ == "__main__":
    main(*sys.argv[1:])
