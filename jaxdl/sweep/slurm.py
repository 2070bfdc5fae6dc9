"""Slurm engine: submits trials as a job array; all hosts share the sweep's folder at one path.

A task of the array runs a share of the trials, one after another, in a worker process. Slurm keeps
the queue, so the driver ends when it has submitted the trials. The same command started again asks
Slurm for the queued trials. A trial that is neither queued nor done has failed, and the next start
submits it again. Partition, time limit and account are set as for any job, by variables such as
SBATCH_PARTITION and SBATCH_TIMELIMIT.

In the folder `slurm`, `JOB.jsonl` has a line for each task, a list of trials, and `JOB.TASK` has a
line for each trial of a task that has ended.
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
from jaxdl.cli import guard
from jaxdl.console import say
from jaxdl.errors import TrainingError, UserError
from jaxdl.signals import Stopped
from jaxdl.sweep import ledger as ledgers
from jaxdl.sweep import outcome
from jaxdl.sweep.ledger import Ledger, Line
from jaxdl.sweep.process import usable

FOLDER = "slurm"


def submit(ledger: Ledger, names: list[str], jobs: int, cpus: int, gpus: int) -> None:
    """Submits the trials that are not in Slurm's queue yet.

    Args:
      ledger: the sweep's ledger.
      names: names of the trials that are not done.
      jobs: trials at a time, which is the number of tasks; 0: a task for each trial.
      cpus: CPUs per trial.
      gpus: GPUs per trial.

    Raises:
      UserError: Slurm refuses the job, or the file of an earlier job cannot be read.
    """
    digest = hashlib.sha256(str(ledger.folder).encode()).hexdigest()[:8]
    queued = _queued(ledger.folder / FOLDER, f"jaxdl-{digest}")
    missing = []
    for name in names:
        line = ledger.lines[name]
        if name in queued:
            line["state"] = "queued"
        elif line["state"] == "queued":
            ledgers.record_end(ledger, name, None, again=False)
        else:
            missing.append(name)
    if missing:
        folder = ledger.folder / FOLDER
        folder.mkdir(exist_ok=True)
        number = len(list(folder.glob("*.jsonl")))
        path = folder / f"{number}.jsonl"
        tasks = min(jobs or len(missing), len(missing))
        shares = [[ledger.lines[name] for name in missing[n::tasks]] for n in range(tasks)]
        files.write_text(path, "".join(json.dumps(share) + "\n" for share in shares))
        resources = [f"--cpus-per-task={cpus}", *([f"--gpus-per-task={gpus}"] if gpus else [])]
        command = [
            *("sbatch", "--parsable", f"--job-name=jaxdl-{digest}-{number}", "--requeue"),
            *(f"--array=0-{tasks - 1}", "--ntasks=1", *resources),
            f"--chdir={os.getcwd()}",
            f"--output={folder}/%A_%a.log",
        ]
        try:
            job = _call(command, script(path)).strip()
        except UserError:
            path.unlink()
            raise
        for name in missing:
            line = ledger.lines[name]
            line.update(state="queued", job=job, starts=line["starts"] + 1)
        say(f"{len(missing)} trials submitted as Slurm job {job}")
    ledger.write()
    if any(ledger.lines[name]["state"] == "queued" for name in names):
        say("the same command shows their states")


def check() -> None:
    """Checks that Slurm is installed.

    Raises:
      UserError: it is not.
    """
    for name in ("sbatch", "squeue"):
        if not shutil.which(name):
            raise UserError(
                f"--engine=slurm: {name} is not installed here: start it on a host with Slurm"
            )


def script(path: Path) -> str:
    """Shell script of an array task, which runs the trials of its number in `path`."""
    words = shlex.join([sys.executable, "-m", "jaxdl.sweep.slurm", str(path)])
    return f'#!/bin/sh\nexec {words} "$SLURM_ARRAY_TASK_ID"\n'


def _queued(folder: Path, job: str) -> set[str]:
    """Names of the trials in Slurm's queue, running or pending."""
    queued = set()
    for line in _call(["squeue", "--noheader", "--array", "--format=%j %K"]).splitlines():
        name, _, task = line.strip().partition(" ")
        if name.rpartition("-")[0] == job:
            path = folder / f"{name.rpartition('-')[2]}.jsonl"
            try:
                queued |= {line["trial"] for line in _share(path, task)} - _ended(path, task)
            except (OSError, ValueError, IndexError, TypeError, KeyError) as error:
                raise UserError(
                    f"{path}, the list of trials of Slurm job {name}, cannot be read: restore "
                    f"it, or cancel the job by scancel --name={name}"
                ) from error
    return queued


def _call(command: list[str], text: str = "") -> str:
    """Runs a command of Slurm with `text` as its input; returns its output."""
    finished = subprocess.run(
        command, input=text, capture_output=True, encoding="utf-8", errors="replace"
    )
    if finished.returncode:
        words = " ".join(finished.stderr.split())[:300]
        raise UserError(f"--engine=slurm: {command[0]}: {words or finished.returncode}")
    return finished.stdout


def _share(path: Path, task: str) -> list[Line]:
    """Trials of an array task."""
    share: list[Line] = json.loads(path.read_text(encoding="utf-8").splitlines()[int(task)])
    return share


def _ended(path: Path, task: str) -> set[str]:
    """Names of the trials of an array task that have ended."""
    try:
        text = path.with_suffix(f".{task}").read_text(encoding="utf-8")
    except FileNotFoundError:
        return set()
    return set(text.splitlines())


def main(path: str, task: str) -> None:
    """Entry point of an array task: runs its trials, except those that are done.

    A signal ends the running trial, and the task.

    Raises:
      TrainingError: a trial failed, or another process runs it.
    """
    failed, worker = [], None
    with files.open_regular(
        Path(path).with_suffix(f".{task}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, "w"
    ) as ended:
        for line in _share(Path(path), task):
            with ledgers.lock_log(line) as log:
                if log is None:
                    failed.append(f"{line['trial']} is already running: see {line['log']}")
                    continue
                if outcome.result(line):
                    continue
                worker = usable(worker, log)
                worker.start(line, log)
            try:
                status = worker.wait()
            except Stopped:
                worker.terminate()
                worker.close()
                raise
            if status:
                failed.append(f"{line['trial']} failed (status {status}): see {line['log']}")
            ended.write(f"{line['trial']}\n")
            ended.flush()
    if worker:
        worker.close()
    if failed:
        raise TrainingError("; ".join(failed))


if __name__ == "__main__":
    sys.exit(guard(lambda: main(*sys.argv[1:])))
