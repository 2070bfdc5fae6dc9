"""--resume=extend: a run goes on to a greater length, and its end then is an end no more."""

import json
import shutil

import pytest

from jaxdl.errors import UserError
from jaxdl.run import logger
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.train import loop, trainer
from tests import tunable

DATA = tunable.load(tunable.Config())
# The run ends at a step at which nothing else is due.
FLAGS = {"num_steps": 7, "log_every": 5, "eval_every": 3, "checkpoint_every": 4}
LONG = FLAGS | {"num_steps": 14}


def train(folder, **changes):
    return loop.train(tunable.Config(workdir=str(folder), **changes), tunable.build, DATA)


def lines(folder):
    return [
        {name: value for name, value in line.items() if name != "seconds"}
        for line in logger.read_metrics(folder)
    ]


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    folder = tmp_path_factory.mktemp("short") / "run"
    train(folder, **FLAGS)
    return folder


@pytest.fixture(scope="module")
def extended(short, tmp_path_factory):
    folder = tmp_path_factory.mktemp("extended") / "run"
    shutil.copytree(short, folder)
    return folder, train(folder, resume="extend", **LONG)


def test_the_longer_run_keeps_the_events_of_the_old_end(short, extended):
    folder, summary = extended
    assert summary["step"] == 14
    before, after = lines(short), lines(folder)
    assert [line for line in before if line["split"] != "test"] == after[: len(before) - 1]
    steps = [line["step"] for line in after if line["split"] == "validation"]
    assert steps == [3, 6, 7, 9, 12, 14]
    best = max(
        (line for line in after if line["split"] == "validation"), key=lambda x: x["accuracy"]
    )
    assert summary["best_step"] == best["step"]
    assert summary["best/validation/accuracy"] == best["accuracy"]
    record = Checkpoints(folder / "checkpoints").newest_record()
    assert record["ends"] == [7]
    assert record["identity"]["num_steps"] == 14


class Crash(Exception):
    pass


@pytest.mark.parametrize("crash", [7, 8, 10, 12])
def test_a_crash_after_it_changes_no_bit(crash, short, extended, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(short, folder)
    take_steps = trainer.Trainer._take_steps

    def crashing(self):
        if self.progress.step >= crash:
            raise Crash
        take_steps(self)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_take_steps", crashing)
        with pytest.raises(Crash):
            train(folder, resume="extend", **LONG)
    assert not (folder / "summary.json").exists()
    # The longer length is the run's now: the plain command goes on, and so does the same one.
    with pytest.raises(UserError, match="another config"):
        train(folder, **FLAGS)
    summary = train(folder, resume="extend" if crash == 10 else "auto", **LONG)
    assert summary["state_sha256"] == extended[1]["state_sha256"]
    assert summary["best_step"] == extended[1]["best_step"]
    assert lines(folder) == lines(extended[0])


def test_the_change_of_the_schedule_is_said(short, tmp_path, capsys):
    shutil.copytree(short, tmp_path / "run")
    train(tmp_path / "run", resume="extend", **LONG)
    # (1 + cos(pi t / T)) / 2 at t = 6 of T = 7, and at t = 7 of T = 14
    assert (
        "extended from 7 to 14 steps, cosine schedule over 14 steps: at step 7 the learning rate "
        "goes from 0.0495 to 0.5 of its peak\n"
    ) in capsys.readouterr().err


def test_shorter_and_other_runs_are_refused(short, extended, tmp_path):
    shutil.copytree(extended[0], tmp_path / "run")
    for flags, message in (
        (FLAGS | {"num_steps": 13}, r"the run is at step 14|is at step 14, and this run would end"),
        (LONG | {"num_steps": 20, "seed": 1}, r"another config \(seed=0 there, 1 here\)"),
        (LONG | {"num_steps": 20, "optimizer": "sgd"}, "another config .*optimizer=adam there"),
    ):
        with pytest.raises(UserError, match=message):
            train(tmp_path / "run", resume="extend", **flags)
    (tmp_path / "unfinished").mkdir()
    for name in ("config.json", "checkpoints"):
        source, target = extended[0] / name, tmp_path / "unfinished" / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    shutil.rmtree(tmp_path / "unfinished" / "checkpoints" / "14")
    with pytest.raises(UserError, match="--resume=extend: the run had 14 steps, and this command"):
        train(tmp_path / "unfinished", resume="extend", **LONG | {"num_steps": 13})
    with pytest.raises(UserError, match="holds no run: leave it out"):
        train(tmp_path / "new", resume="extend", **LONG)
    assert not (tmp_path / "new").exists()


def test_the_same_length_is_no_extension(extended, tmp_path, capsys):
    shutil.copytree(extended[0], tmp_path / "run")
    summary = train(tmp_path / "run", resume="extend", **LONG)
    assert summary["state_sha256"] == extended[1]["state_sha256"]
    assert "extended" not in capsys.readouterr().err
    with pytest.raises(UserError, match=r"another config \(num_steps=14 there, 20 here\)"):
        train(tmp_path / "run", **LONG | {"num_steps": 20})
    record = json.loads(
        (tmp_path / "run" / "checkpoints" / "14" / "record.json").read_text(encoding="utf-8")
    )
    assert record["ends"] == [7]


def test_a_run_that_is_out_of_patience_stays_at_its_end(tmp_path, capsys):
    flags = FLAGS | {"num_steps": 9, "patience": 1, "min_improvement": 5.0}
    assert train(tmp_path / "run", **flags)["step"] == 6
    assert train(tmp_path / "run", resume="extend", **flags | {"num_steps": 14})["step"] == 6
    assert "--patience=1: no better accuracy since step" in capsys.readouterr().err
