"""A stand-in for Slurm: `sbatch` checks its arguments and keeps the job; `squeue` lists jobs."""

import os
import subprocess
import sys
import time

import pytest

from jaxdl.__main__ import run as command
from jaxdl.errors import TrainingError, UserError
from jaxdl.lock import locked
from jaxdl.sweep.ledger import Ledger

SBATCH = r"""#!/usr/bin/env bash
set -eu
for argument in "$@"; do
  case $argument in
    --parsable | --requeue | --ntasks=1 | --cpus-per-task=2 | --gpus-per-task=1) ;;
    --job-name=*) name=${argument#*=} ;;
    --array=0-[01]) last=${argument##*-} ;;
    --chdir=*) test -d "${argument#*=}" ;;
    --output=*/%A_%a.log) test -d "$(dirname "${argument#*=}")" ;;
    *) echo "sbatch: unknown $argument" >&2; exit 1 ;;
  esac
done
cat > "$QUEUE/$name.sh"
for task in $(seq 0 "$last"); do echo "$name $task" >> "$QUEUE/waiting"; done
echo 4711
"""
SQUEUE = r"""#!/usr/bin/env bash
test "$*" = "--noheader --array --format=%j %K" || { echo "squeue: $*" >&2; exit 1; }
echo "somebody-else N/A"
cat "$QUEUE/waiting" 2> /dev/null || true
"""
FLAGS = ["--engine=slurm", "--jobs=2", "--cpus=2", "--gpus=1", "--seed=0..3", "--sleep=0"]


@pytest.fixture
def queue(tmp_path, monkeypatch):
    folder = tmp_path / "queue"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("QUEUE", str(folder))
    return folder


def waiting(queue):
    path = queue / "waiting"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def work(queue, times, status=0):
    """Runs the first tasks that wait, as Slurm would."""
    for line in waiting(queue)[:times]:
        name, task = line.split()
        environment = os.environ | {"SLURM_ARRAY_TASK_ID": task}
        done = subprocess.run(["sh", str(queue / f"{name}.sh")], env=environment)
        assert done.returncode == status
    left = waiting(queue)[times:]
    (queue / "waiting").write_text("".join(f"{line}\n" for line in left), encoding="utf-8")


def starts(folder):
    return [path.read_text(encoding="utf-8") for path in folder.glob("trials/*/starts")]


def test_slurm_gets_each_trial_once_until_it_is_done(queue, tmp_path, capsys):
    folder = tmp_path / "sweep"

    def sweep():
        command(["sweep", "tests.quick", f"--workdir={folder}", *FLAGS])
        return [line["state"] for line in Ledger.read(folder).lines.values()]

    assert sweep() == ["queued"] * 4
    assert len(waiting(queue)) == 2  # each has two trials
    assert "4 trials submitted as Slurm job 4711" in capsys.readouterr().err
    work(queue, 1)
    assert sweep() == ["done", "queued", "done", "queued"]
    assert len(waiting(queue)) == 1  # what waits is not handed in again
    (queue / "waiting").write_text("", encoding="utf-8")  # it is lost
    with pytest.raises(TrainingError, match="2 of 4 trials failed"):
        sweep()
    assert sweep() == ["done", "queued", "done", "queued"]
    assert len(waiting(queue)) == 2
    work(queue, 2)
    assert sweep() == ["done"] * 4
    assert waiting(queue) == []
    assert starts(folder) == ["begun\nended\n"] * 4
    assert (folder / "logs" / "seed=0.log").read_text(encoding="utf-8") == "done\n"


def test_a_share_goes_on_after_a_trial_that_failed(queue, tmp_path):
    folder = tmp_path / "sweep"
    flags = [*FLAGS[:4], "--how=badly,killed,well", "--sleep=0"]

    def sweep():
        command(["sweep", "tests.quick", f"--workdir={folder}", *flags])

    sweep()
    tasks = waiting(queue)
    assert len(tasks) == 2
    work(queue, 1, status=1)
    (queue / "waiting").write_text("\n".join(tasks), encoding="utf-8")  # as if it still ran
    with pytest.raises(TrainingError, match=r"1 of 3 trials failed \(how=badly\)"):
        sweep()
    states = {name: line["state"] for name, line in Ledger.read(folder).lines.items()}
    assert states == {"how=badly": "failed", "how=killed": "queued", "how=well": "done"}
    assert sorted(starts(folder)) == ["begun\n", "begun\nended\n"]


def test_a_signal_ends_the_trial_and_its_share(queue, tmp_path):
    folder = tmp_path / "sweep"
    flags = [*FLAGS[:1], "--jobs=1", *FLAGS[2:4], "--fate=waits", "--seed=0,1"]
    command(["sweep", "tests.fates", f"--workdir={folder}", *flags])
    words = [sys.executable, "-m", "jaxdl.sweep.slurm", str(folder / "slurm" / "0.jsonl"), "0"]
    task = subprocess.Popen(words, stderr=subprocess.PIPE, encoding="utf-8")
    log = folder / "logs" / "seed=0.log"
    while not log.exists() or "\nwaits\n" not in log.read_text(encoding="utf-8"):
        assert task.poll() is None
        time.sleep(0.01)
    task.terminate()
    assert "stopped by signal 15" in task.communicate()[1]
    assert task.returncode == 143
    assert log.read_text(encoding="utf-8").endswith("waits\nsaved\n")
    assert not (folder / "logs" / "seed=1.log").exists()


def test_a_trial_that_runs_is_not_run_twice(queue, tmp_path):
    folder = tmp_path / "sweep"
    command(["sweep", "tests.quick", f"--workdir={folder}", *FLAGS])
    log = folder / "logs" / "seed=0.log"
    log.parent.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "jaxdl.sweep.slurm", str(folder / "slurm" / "0.jsonl"), "0"]
    with log.open("ab") as file:
        assert locked(file)
        found = subprocess.run(words, capture_output=True, encoding="utf-8")
    assert (found.returncode, found.stdout) == (1, "")
    assert "seed=0 is already running" in found.stderr
    assert not (folder / "trials" / "seed=0").exists()
    subprocess.run(words, check=True)
    subprocess.run(words, check=True)  # done: nothing happens
    assert starts(folder) == ["begun\nended\n"] * 2


def test_what_slurm_does_not_take_is_said(queue, tmp_path):
    flags = [flag for flag in FLAGS if flag != "--cpus=2"]
    with pytest.raises(UserError, match="sbatch: sbatch: unknown --cpus-per-task=1"):
        command(["sweep", "tests.quick", f"--workdir={tmp_path / 'sweep'}", *flags])


def test_no_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch is not installed here"):
        command(["sweep", "tests.quick", f"--workdir={tmp_path / 'sweep'}", "--engine=slurm"])
    assert not list(tmp_path.iterdir())
