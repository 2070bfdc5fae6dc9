"""Populations of a sweep: members end as the same trials would alone."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments import iris_mlp
from jaxdl.__main__ import run as command
from jaxdl.errors import TrainingError, UserError
from jaxdl.flags import parse_flags
from jaxdl.sweep.ledger import Ledger, lock_log

FLAGS = ["--num_steps=60", "--eval_every=20", "--checkpoint_every=20", "--log_every=5"]


def words(folder, *flags, fixed=FLAGS):
    return [
        "sweep",
        "experiments.iris_mlp",
        "--engine=population",
        f"--workdir={folder}",
        *flags,
        "--",
        *fixed,
    ]


def digest(folder):
    return json.loads((folder / "summary.json").read_text("utf-8"))["state_sha256"]


def alone(folder, *flags, fixed=FLAGS):
    iris_mlp.run(parse_flags(iris_mlp.Config, [*fixed, *flags, f"--workdir={folder}"]))
    return digest(folder)


def test_members_are_trials_with_logs_of_their_own(tmp_path, capsys):
    folder = tmp_path / "sweep"
    broken = folder / "trials" / "learning_rate=0.1,seed=1"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{", encoding="utf-8")
    flags = ["--learning_rate=0.1,0.2", "--seed=0,1", "--retries=0"]
    with pytest.raises(TrainingError, match="1 of 4 trials failed"):
        command(words(folder, *flags))
    lines = Ledger.read(folder).lines
    assert {line["starts"] for line in lines.values()} == {1}
    for name, line in lines.items():
        log = Path(line["log"]).read_text(encoding="utf-8")
        if name == broken.name:
            assert line["status"] == 2
            assert log.count("\n") == 1
            assert log.startswith("error: ")
            continue
        trial = folder / "trials" / name
        assert f"run folder: {trial}\n" in log
        assert log.endswith(f"state_sha256 = {digest(trial)}\n")
        about = json.loads((trial / "environment.json").read_text("utf-8"))["population"]
        assert about["members"] == 4
        assert about["devices"] == min(4, len(os.sched_getaffinity(0)))
        assert about["map"] in ("devices", "sequential")
        assert digest(trial) == alone(tmp_path / name, *line["flags"])
    (broken / "config.json").unlink()
    command(words(folder, *flags))
    assert digest(broken) == alone(tmp_path / "last", "--learning_rate=0.1", "--seed=1")


def members(driver):
    """Process that runs the population of a driver; None if there is none."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text("utf-8").rpartition(")")[2].split()
            if (
                int(fields[1]) == driver
                and b"sweep.members" in (path.parent / "cmdline").read_bytes()
            ):
                return int(path.parent.name)
        except OSError:
            continue
    return None


def test_a_kill_loses_nothing(tmp_path):
    folder, kills = tmp_path / "sweep", 3
    fixed = ["--num_steps=4000", "--checkpoint_every=100", "--eval_every=1000", "--log_every=500"]
    command_line = words(folder, "--seed=0..3", f"--retries={kills}", fixed=fixed)
    driver = subprocess.Popen(
        [sys.executable, "-m", "jaxdl", *command_line], stderr=subprocess.DEVNULL
    )
    for _ in range(kills):
        until = time.monotonic() + 100
        killed = None
        while not killed and driver.poll() is None and time.monotonic() < until:
            process = members(driver.pid)
            steps = [p.name for p in folder.glob("trials/seed=3/checkpoints/*") if p.name.isdigit()]
            if process and steps and max(map(int, steps)) < 3500:
                os.kill(process, signal.SIGKILL)
                killed = process
            time.sleep(0.05)
        while killed and members(driver.pid) == killed:
            time.sleep(0.01)
    assert driver.wait(200) == 0
    for seed in range(4):
        wanted = alone(tmp_path / str(seed), f"--seed={seed}", fixed=fixed)
        assert digest(folder / "trials" / f"seed={seed}") == wanted


def test_flags_of_populations_are_theirs(tmp_path):
    with pytest.raises(UserError, match="--map=vmap is for --engine=population: leave it out"):
        command(
            ["sweep", "experiments.iris_mlp", "--map=vmap", f"--workdir={tmp_path}", "--seed=0,1"]
        )


def test_a_trial_that_another_process_still_runs_is_waited_for(tmp_path):
    folder = tmp_path / "sweep"
    (folder / "logs").mkdir(parents=True)
    with lock_log({"log": str(folder / "logs" / "seed=1.log")}) as log:
        held = os.dup(log.fileno())  # the lock is held until this descriptor is closed
    threading.Timer(6, os.close, [held]).start()
    command(words(folder, "--seed=0,1"))
    lines = Ledger.read(folder).lines
    assert [(line["state"], line["starts"]) for line in lines.values()] == [("done", 1)] * 2
