"""Sweeps of an experiment that only sleeps, on this machine; drivers are killed for real."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxdl.__main__ import run as command
from jaxdl.errors import TrainingError, UserError
from jaxdl.sweep import local
from jaxdl.sweep.ledger import Ledger

SIX = ["tests.quick", "--learning_rate=0.1,0.2", "--seed=0..2"]


def sweep(folder, *flags):
    command(["sweep", *SIX, f"--workdir={folder}", *flags])


def starts(folder):
    """Number of times that each trial began, and ended."""
    return {
        path.parent.name: (text.count("begun"), text.count("ended"))
        for path in folder.glob("trials/*/starts")
        for text in [path.read_text(encoding="utf-8")]
    }


def states(folder):
    return [line["state"] for line in Ledger.read(folder).lines.values()]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "sweep"
    sweep(folder, "--jobs=3", "--sleep=0")
    return folder


def test_each_trial_runs_once(done):
    assert set(starts(done).values()) == {(1, 1)}
    assert len(starts(done)) == 6


def test_the_ledger_says_what_came_out(done):
    lines = Ledger.read(done).lines
    line = lines["learning_rate=0.2,seed=1"]
    assert line["state"] == "done"
    assert (line["metric"], line["better"], line["starts"]) == ("validation/loss", "min", 1)
    assert line["value"] == pytest.approx(0.21)
    assert line["tested"] == pytest.approx(1.21)
    assert (line["config"]["learning_rate"], line["config"]["seed"]) == (0.2, 1)
    assert line["command"] == (
        "python -m tests.quick --sleep=0 --learning_rate=0.2 --seed=1 "
        f"--workdir={done}/trials/learning_rate=0.2,seed=1"
    )
    assert Path(line["log"]).read_text(encoding="utf-8") == "done\n"


def test_again_nothing_runs_and_the_table_stands(done, capsys):
    sweep(done, "--jobs=3", "--sleep=0")
    assert set(starts(done).values()) == {(1, 1)}
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    # 4.303 standard errors of 0.0058: the t distribution with 2 degrees of freedom.
    assert rows[1] == [
        "0.1",
        "3/3",
        "0.1100",
        "[0.0852,",
        "0.1348]",
        "1.1100",
        "[1.0852,",
        "1.1348]",
    ]
    assert rows[2][0] == "0.2"


def test_more_seeds_go_into_the_same_folder(done):
    command(["sweep", *SIX[:2], "--seed=2..3", "--sleep=0", f"--workdir={done}"])
    assert set(starts(done).values()) == {(1, 1)}
    assert len(starts(done)) == 8


@pytest.mark.parametrize(
    "flags",
    [
        ["--seed=0..2", "--learning_rate=0.1,0.2"],
        ["--learning_rate=0.10,0.2", "--seed=0,2"],
        ["--seed=1", "--learning_rate=0.2"],
    ],
)
def test_the_same_trials_in_other_words_are_the_same(done, flags):
    command(["sweep", SIX[0], *flags, "--sleep=0.0", f"--workdir={done}"])
    assert set(starts(done).values()) == {(1, 1)}
    assert len(starts(done)) == 8


def test_what_differs_stands_apart_in_the_table(tmp_path, capsys):
    folder = tmp_path / "sweep"
    for rate in (0.1, 0.9):
        fixed = ["--", "--sleep=0", f"--learning_rate={rate}"]
        command(["sweep", "tests.quick", "--seed=0,1", f"--workdir={folder}", *fixed])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0][0] != "learning_rate"
    means = [row[:3] for row in rows if row[1:2] == ["2/2"]]
    assert means[-2:] == [["0.1", "2/2", "0.1050"], ["0.9", "2/2", "0.9050"]]
    assert len(starts(folder)) == 4


def test_a_value_twice_in_other_words(tmp_path):
    with pytest.raises(UserError, match="by different flags"):
        command(["sweep", "tests.quick", "--seed=0,00", f"--workdir={tmp_path / 'sweep'}"])
    assert not list(tmp_path.iterdir())


def test_another_experiment_is_refused(done):
    with pytest.raises(UserError, match=r"holds a sweep of tests\.quick"):
        command(["sweep", "tests.small", "--seed=0,1", f"--workdir={done}"])


def test_a_sweep_that_moved_goes_on(done, tmp_path, capsys):
    copy = tmp_path / "elsewhere"
    shutil.copytree(done, copy)
    shutil.rmtree(copy / "trials" / "learning_rate=0.1,seed=1")
    command(["report", str(copy), f"--output={tmp_path / 'report.png'}"])
    assert "7 done, 1 stopped" in capsys.readouterr().out
    sweep(copy, "--sleep=0")
    command(["report", str(copy), f"--output={tmp_path / 'report.png'}"])
    assert f"{copy}: 8 done" in capsys.readouterr().out


def test_a_ledger_that_is_gone_is_written_anew(done, tmp_path):
    copy = tmp_path / "sweep"
    shutil.copytree(done, copy)
    (copy / "sweep.jsonl").unlink()
    sweep(copy, "--sleep=0")
    assert set(starts(copy).values()) == {(1, 1)}
    assert states(copy) == ["done"] * 6


def test_a_trials_folder_with_something_else_is_named(done, tmp_path):
    copy = tmp_path / "sweep"
    shutil.copytree(done, copy)
    folder = copy / "trials" / "learning_rate=0.1,seed=0"
    (folder / "summary.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"delete this file, and the trial writes it again"):
        sweep(copy, "--sleep=0")
    (folder / "summary.json").unlink()
    sweep(copy, "--sleep=0", "--jobs=99999999999999999999")  # at most one for each trial
    assert set(states(copy)) == {"done"}
    shutil.rmtree(folder)
    shutil.copytree(copy / "trials" / "learning_rate=0.2,seed=0", folder)
    with pytest.raises(UserError, match="holds the run of another config"):
        sweep(copy, "--sleep=0")


def test_killed_drivers_lose_nothing_and_repeat_nothing(tmp_path):
    folder = tmp_path / "sweep"
    flags = [*SIX, "--sleep=0.4", "--jobs=2", f"--workdir={folder}"]
    for wait in (0.1, 0.3, 0.5):
        driver = subprocess.Popen([sys.executable, "-m", "jaxdl", "sweep", *flags])
        until = time.monotonic() + 60
        before = len(starts(folder))
        while len(starts(folder)) == before and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(wait)  # others come and go
        driver.kill()
        driver.wait()
    command(["sweep", *flags])
    assert starts(folder) == {
        f"learning_rate={r},seed={s}": (1, 1) for r in (0.1, 0.2) for s in range(3)
    }
    assert states(folder) == ["done"] * 6


def test_a_signal_stops_the_trials_too(tmp_path):
    folder = tmp_path / "sweep"
    flags = [*SIX, "--sleep=60", "--jobs=2", f"--workdir={folder}"]
    driver = subprocess.Popen(
        [sys.executable, "-m", "jaxdl", "sweep", *flags], stderr=-1, encoding="utf-8"
    )
    while len(starts(folder)) < 2:
        time.sleep(0.01)
    driver.send_signal(signal.SIGTERM)
    assert "the same command goes on" in driver.communicate()[1]
    assert driver.returncode == 143
    assert states(folder) == ["waiting"] * 6
    sleepers = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, encoding="utf-8")
    assert sleepers.stdout == ""


def test_two_drivers_are_one_too_many(done):
    from jaxdl.lock import Lock

    with Lock(done / ".lock"), pytest.raises(UserError, match="in use by process"):
        sweep(done, "--sleep=0")


def test_failures_are_named_and_tried_again_by_the_next_call(tmp_path, capsys):
    for times in (1, 2):
        with pytest.raises(TrainingError, match="6 of 6 trials failed"):
            sweep(tmp_path / "sweep", "--how=badly", "--jobs=3")
        assert set(starts(tmp_path / "sweep").values()) == {(times, 0)}
    assert "failed (status 2): error: --how=badly" in capsys.readouterr().err
    assert states(tmp_path / "sweep") == ["failed"] * 6


@pytest.mark.parametrize(("how", "begun"), [("killed once", 2), ("killed", 3)])
def test_what_is_killed_goes_on(how, begun, tmp_path):
    flags = ["tests.quick", f"--how={how}", "--sleep=0", f"--workdir={tmp_path / 'sweep'}"]
    if how == "killed":
        with pytest.raises(TrainingError, match="1 of 1 trials failed"):
            command(["sweep", *flags, "--retries=2"])
    else:
        command(["sweep", *flags])
    assert starts(tmp_path / "sweep") == {"alone": (begun, int(begun == 2))}


def test_each_place_has_its_device(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    sweep(tmp_path / "sweep", "--sleep=0.3")
    summaries = [
        json.loads(p.read_text(encoding="utf-8"))
        for p in tmp_path.glob("sweep/trials/*/summary.json")
    ]
    assert sorted(summary["visible"] for summary in summaries) == ["4"] * 3 + ["7"] * 3


def test_devices_that_are_shared():
    gpus = [{"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "7"}]
    assert local.environment(gpus, 1, 2) == gpus[1]
    shared = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.450"}
    assert local.environment(gpus, 2, 4) == gpus[0] | shared
    assert local.environment([], 1, 2) == {}
    with pytest.raises(UserError, match="give at most 1"):
        local.environment([{"TPU_VISIBLE_CHIPS": "0"}], 0, 2)


def test_devices_are_found(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        local.glob, "glob", lambda pattern: ["a", "b"] if "accel" in pattern else []
    )
    assert [found["TPU_VISIBLE_CHIPS"] for found in local.devices()] == ["0", "1"]
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\necho 'GPU 0: A'\necho 'GPU 1: A'\n", encoding="utf-8")
    listing.chmod(0o755)
    assert local.devices() == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "TPU_VISIBLE_CHIPS" in local.devices()[0]


def test_a_dry_run_prints_what_would_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command(["sweep", *SIX, "--dry_run"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    folder = lines[0].split("--workdir=")[1].partition("/trials")[0]
    assert lines[0].startswith("python -m tests.quick --learning_rate=0.1 --seed=0 --workdir=")
    assert folder.startswith(f"{tmp_path}/runs/quick/sweep-")
    assert not list(tmp_path.iterdir())
    command(["sweep", *SIX, "--dry_run"])
    assert capsys.readouterr().out.splitlines() == lines
    for flag in ("--map=vmap", "--cpus=2"):  # refused as they would be
        with pytest.raises(UserError, match=r"leave (it|them) out"):
            command(["sweep", *SIX, flag, "--dry_run"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--learning_rate=0.1,-1"], "at least|from 0"),
        (["--wrong=1,2"], "wrong"),
        (["--how=well,ill"], "choose one of"),
        (["--resume=force"], "leave it out"),
        (["--", "--workdir=x"], "leave it out"),
        (["--jobs=-1"], "not a whole number"),
        (["--cpus=2"], "for Slurm and Ray"),
        (["--engine=cloud"], "invalid choice"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(flags, said, tmp_path):
    with pytest.raises(UserError, match=said):
        command(["sweep", "tests.quick", f"--workdir={tmp_path / 'sweep'}", *flags])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["tests.nothing", "json"])
def test_no_experiment(name, tmp_path):
    with pytest.raises(UserError, match="experiment"):
        command(["sweep", name, f"--workdir={tmp_path / 'sweep'}"])


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years", encoding="utf-8")
    with pytest.raises(UserError, match="holds other files"):
        sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "text", ["[1]", "{", "{}", '{"trial": "a", "state": "done", "flags": [], "config": null}']
)
def test_a_garbled_ledger_is_named(text, tmp_path):
    (tmp_path / "sweep.jsonl").write_text(f"{text}\n", encoding="utf-8")
    for words in (["sweep", *SIX, f"--workdir={tmp_path}"], ["report", str(tmp_path)]):
        with pytest.raises(UserError, match=r"sweep\.jsonl.*repair or delete it"):
            command(words)


def test_reports_of_sweeps_are_apart(done, tmp_path):
    with pytest.raises(UserError, match="report it alone"):
        command(["report", str(done), str(done / "trials")])


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        sweep(tmp_path / "file" / "sweep")
