"""Kills at any moment of a search, and files that they leave behind, change no decision."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxdl.sweep import local
from tests.sweep.searching import (
    FLAGS,
    HALVING,
    RATES,
    WANTED,
    Crash,
    digest,
    done,
    here,
    lines,
    run_here,
    search,
    steps,
)

__all__ = ["done", "here"]


@pytest.mark.parametrize("crash", [1, 6, 9, 13])
def test_a_driver_that_ends_at_any_moment_goes_on(crash, done, tmp_path, monkeypatch):
    """The moments are before and after each trial of each round."""
    folder, count = tmp_path / "sweep", [0]

    def crashing(*arguments):
        count[0] += 1
        if count[0] == crash:
            raise Crash

    def run(book, names, jobs, retries):
        for name in names:
            crashing()
            run_here(book, [name], jobs, retries)
            crashing()

    monkeypatch.setattr(local, "run", run)
    with pytest.raises(Crash):
        search(folder, RATES, *HALVING)
    search(folder, RATES, *HALVING)
    assert steps(folder) == WANTED
    winner = Path("trials") / "learning_rate=0.3"
    assert digest(folder / winner) == digest(done / winner)


def test_a_resumed_log_that_lacks_its_last_lines_changes_no_decision(done, tmp_path, here):
    """A run that goes on cuts its log to the checkpoint, and writes the lines of that step anew."""
    folder = tmp_path / "sweep"
    shutil.copytree(done, folder)
    for trial in (folder / "trials").iterdir():
        text = (trial / "metrics.jsonl").read_text("utf-8").splitlines(keepends=True)
        (trial / "metrics.jsonl").write_text("".join(text[:1]), "utf-8")
    search(folder, RATES, *HALVING)
    assert steps(folder) == WANTED


def test_a_ledger_that_is_gone_is_written_anew(done, tmp_path, here):
    shutil.copytree(done, tmp_path / "sweep")
    (tmp_path / "sweep" / "sweep.jsonl").unlink()
    search(tmp_path / "sweep", RATES, *HALVING)
    assert steps(tmp_path / "sweep") == WANTED
    assert {line["starts"] for line in lines(tmp_path / "sweep").values()} == {0}


def workers(driver_id):
    """Processes of a driver."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text("utf-8").rpartition(")")[2].split()[1]) == driver_id:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_kills_of_drivers_and_workers_lose_nothing(done, tmp_path):
    folder = tmp_path / "sweep"
    words = [
        "sweep",
        "experiments.iris_mlp",
        f"--workdir={folder}",
        "--engine=population",
        RATES,
        *HALVING,
    ]
    command_line = [sys.executable, "-m", "jaxdl", *words, "--retries=5", "--", *FLAGS]
    for kill in ("driver", "worker"):
        process = subprocess.Popen(command_line, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 100
        wanted = {"driver": 10, "worker": 20}[kill]
        while process.poll() is None and time.monotonic() < until:
            paths = folder.glob("trials/*/checkpoints/*")
            if any(path.name == str(wanted) for path in paths):
                break
            time.sleep(0.01)
        victims = [process.pid] if kill == "driver" else workers(process.pid)
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        if kill == "driver":
            process.wait()
    assert process.wait(200) == 0
    assert steps(folder) == WANTED
    winner = Path("trials") / "learning_rate=0.3"
    assert digest(folder / winner) == digest(done / winner)
    assert json.loads((folder / winner / "summary.json").read_text("utf-8"))["step"] == 60
