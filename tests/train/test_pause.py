"""--pause_at: a run that pauses and goes on has the bits and the log of one that did not."""

import json
import sys

import pytest

from jaxdl import cli, saved_config, signals
from jaxdl.errors import Paused, UserError
from jaxdl.flags import parse_flags
from jaxdl.run.checkpoint import Checkpoints
from tests import small
from tests.train.whole import FLAGS, stop_in_evaluation, train, without_seconds


def pause(folder, step, **changes):
    with pytest.raises(Paused) as paused:
        train(small, workdir=str(folder), pause_at=step, **(FLAGS | changes))
    return str(paused.value)


def newest(folder):
    return Checkpoints(folder / "checkpoints").newest_record()


@pytest.mark.parametrize("steps", [[4], [5], [6], [1, 2, 3, 4, 7, 10, 11], [6, 6, 3]])
def test_pauses_change_no_bit_and_no_line(steps, whole, tmp_path):
    folder = tmp_path / "run"
    for step in steps:
        said = pause(folder, step)
        reached = max(step, *steps[: steps.index(step) + 1])
        assert said.startswith(f"paused at step {reached} of 12: the same command with ")
        assert newest(folder)["step"] == reached
        assert not (folder / "summary.json").exists()
    summary = train(small, workdir=str(folder), **FLAGS)
    assert summary["state_sha256"] == whole[1]["state_sha256"]
    assert without_seconds(folder) == without_seconds(whole[0])


@pytest.mark.parametrize("step", [12, 13, 10**6])
def test_a_run_that_ends_before_it_just_ends(step, whole, tmp_path):
    summary = train(small, workdir=str(tmp_path / "run"), pause_at=step, **FLAGS)
    assert summary["state_sha256"] == whole[1]["state_sha256"]


def test_a_finished_run_is_finished_again(copy, whole):
    summary = train(small, workdir=str(copy), pause_at=3, **FLAGS)
    assert summary["state_sha256"] == whole[1]["state_sha256"]


def test_the_events_of_the_step_are_in_the_log_and_in_the_checkpoint(tmp_path):
    folder = tmp_path / "run"
    pause(folder, 6, eval_every=3)
    record, log = Checkpoints(folder / "checkpoints").newest_log()
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["step"] for line in lines if line["split"] == "validation"] == [3, 6]
    assert log == (folder / "metrics.jsonl").read_text("utf-8")
    assert record["logged"]
    assert record["metric"] == ["accuracy", "max"]


def test_a_checkpoint_from_before_the_events_is_made_anew(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_in_evaluation(patch, 6)
        with pytest.raises(signals.Stopped):
            train(small, workdir=str(folder), pause_at=6, eval_every=3, **FLAGS)
    assert (newest(folder)["step"], newest(folder)["logged"]) == (6, False)
    pause(folder, 6, eval_every=3)
    assert (newest(folder)["step"], newest(folder)["logged"]) == (6, True)


def test_patience_ends_a_run_at_the_step_of_its_pause(tmp_path):
    flags = FLAGS | {"eval_every": 2, "patience": 1, "min_improvement": 1.0, "pause_at": 4}
    summary = train(small, workdir=str(tmp_path / "run"), **flags)
    assert summary["step"] == 4


def test_the_command_pauses_with_status_0_and_one_line(tmp_path, capsys, monkeypatch):
    words = [f"--workdir={tmp_path / 'run'}", "--pause_at=6", "--log_every=4"]
    monkeypatch.setattr(sys, "argv", ["small", *words])
    with pytest.raises(SystemExit) as end:
        cli.main(small.run, small.Config)
    assert end.value.code == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.splitlines()[-1]
    assert line == (
        f"paused at step 6 of 12: the same command with --workdir={tmp_path / 'run'} and another "
        "or no --pause_at goes on"
    )


def test_it_is_no_part_of_a_config_and_of_its_flag_file():
    config, other = small.Config(pause_at=3), small.Config()
    assert config == other
    assert saved_config.identity(config) == saved_config.identity(other)
    assert "pause_at" not in saved_config.to_flags(config)


@pytest.mark.parametrize("flag", ["--pause_at=-1", "--pause_at=x", f"--pause_at={2**31}"])
def test_steps_that_are_none(flag):
    with pytest.raises(UserError, match="--pause_at"):
        parse_flags(small.Config, [flag])
