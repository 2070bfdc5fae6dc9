"""A run goes on with the config, data and code that it began with, or says why not."""

import dataclasses

import jax
import pytest

from jaxdl.config import flag
from jaxdl.console import Training
from jaxdl.errors import UserError
from jaxdl.run import environment, run_folder
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.tools.evaluate import evaluate
from jaxdl.train import loop, stopwatch
from tests.conftest import forget_programs
from tests.train.whole import (
    FLAGS,
    Crash,
    OtherNet,
    crash_at,
    on_other_data,
    scripted,
    train,
    without_seconds,
)


def test_a_finished_run_is_not_trained_again(whole, small):
    folder, summary = whole
    before = without_seconds(folder)
    again = train(small, workdir=str(folder), log_every=4, checkpoint_every=5)
    assert again["state_sha256"] == summary["state_sha256"]
    assert without_seconds(folder) == before
    assert again["test/accuracy"] == summary["test/accuracy"]
    assert again["examples_per_second"] == summary["examples_per_second"] > 0


@pytest.mark.parametrize("change", [{"seed": 3}, {"learning_rate": 0.2}, {"eval_every": 4}])
def test_a_workdir_of_another_config_is_refused(change, whole, small):
    folder, _ = whole
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    with pytest.raises(UserError, match=f"{next(iter(change))}.*give another --workdir"):
        train(small, workdir=str(folder), **({"log_every": 4, "checkpoint_every": 5} | change))
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_resume_never(whole, small):
    folder, _ = whole
    with pytest.raises(UserError, match="--resume=auto"):
        train(small, workdir=str(folder), log_every=4, checkpoint_every=5, resume="never")


def test_other_data_is_refused_unless_forced(copy, small):
    with pytest.raises(UserError, match=r"data=.* there, other bytes here.*--resume=force"):
        on_other_data(small, copy)
    assert on_other_data(small, copy, resume="force")["step"] == 12


def test_another_config_may_be_forced_and_is_the_runs_from_then_on(copy, small):
    more = {"workdir": str(copy), "num_epochs": 3, **FLAGS}
    with pytest.raises(UserError, match="num_epochs=2 there, 3 here"):
        train(small, **more)
    assert train(small, resume="force", **more)["step"] == 18
    assert train(small, **more)["step"] == 18


def test_a_run_from_before_a_flag_goes_on_while_that_has_its_default(copy, small):
    @dataclasses.dataclass(frozen=True)
    class Newer(small.Config):
        newer: float = flag(0.5, "a flag that the run's version had not")

    Newer.__module__ = small.__name__
    (copy / "summary.json").unlink()
    assert small.run(Newer(workdir=str(copy), **FLAGS))["step"] == 12
    with pytest.raises(UserError, match=r"newer=.* there, 0\.7 here"):
        small.run(Newer(workdir=str(copy), newer=0.7, **FLAGS))


def test_a_model_of_another_shape_is_not_forced(copy, small, monkeypatch):
    monkeypatch.setattr(small, "Net", lambda dropout, width: OtherNet())
    forget_programs()
    with pytest.raises(UserError, match="of another model"):
        train(small, workdir=str(copy), resume="force", **FLAGS)
    forget_programs()


def test_other_versions_are_said(copy, small, monkeypatch, capsys):
    versions = environment.versions(1) | {"jax": "99.0"}
    monkeypatch.setattr(environment, "versions", lambda *_: versions)
    train(small, workdir=str(copy), **FLAGS)
    err = capsys.readouterr().err
    assert f"jax {jax.__version__} then, 99.0 now: the run goes on" in err


@pytest.mark.parametrize("name", environment.DECISIVE)
def test_a_setting_that_draws_other_numbers_is_refused_unless_forced(name, copy, small):
    path = copy / "checkpoints" / "12" / "record.json"
    before = path.read_bytes()
    other = {"jax_enable_x64": "True", "jax_threefry_partitionable": "odd"}.get(name, "another")
    checkpoints = Checkpoints(copy / "checkpoints")

    def told(step):
        found = Checkpoints.record(checkpoints, step)
        return found | {"versions": found["versions"] | {name: other}}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "newest_record", lambda self: told(12))
        with pytest.raises(UserError, match=f"made with {name.upper()}={other}; with .* set here"):
            train(small, workdir=str(copy), log_every=4, checkpoint_every=5)
        with pytest.raises(UserError, match=name.upper()):
            evaluate(run_folder.Run(copy, small, small.Config(), "newest", frozenset()), "test")
        train(small, workdir=str(copy), log_every=4, checkpoint_every=5, resume="force")
    assert path.read_bytes() == before


def test_damage_to_the_newest_costs_work_and_to_the_best_its_figures(
    small, tmp_path, monkeypatch, capsys
):
    scripted(monkeypatch, [0.1, 0.9, 0.3, 0.3, 0.8, 0.2])
    flags = {"workdir": str(tmp_path), "eval_every": 2, "num_steps": 12, "checkpoint_every": 3}
    first = train(small, **flags)
    assert first["best_step"] == 4
    (tmp_path / "checkpoints" / "12" / "record.json").write_text("", encoding="utf-8")
    second = train(small, **flags)
    assert "12 is damaged (record.json has 0 bytes" in capsys.readouterr().err
    timed = ("seconds", "examples_per_second", "flops_per_second")
    assert second == first | {name: second[name] for name in timed}
    (tmp_path / "checkpoints" / "4" / "manifest.json").write_text("", encoding="utf-8")
    third = train(small, **flags)
    assert "it was the best, so the summary has no figures of the best" in capsys.readouterr().err
    assert third["state_sha256"] == first["state_sha256"]
    assert "best/test/loss" in first
    assert "best/test/loss" not in third


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_lost_config_is_in_the_checkpoints_too(text, copy, small, whole, capsys):
    path = copy / "config.json"
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="seed=0 there, 1 here"):
        train(small, workdir=str(copy), seed=1, **FLAGS)
    capsys.readouterr()
    again = train(small, workdir=str(copy), **FLAGS)
    assert capsys.readouterr().err.count("The config in its checkpoints counts") == 1
    assert again["state_sha256"] == whole[1]["state_sha256"]


def test_a_forced_run_is_of_its_config_at_once(copy, small, monkeypatch):
    more = {"workdir": str(copy), "num_epochs": 3, **FLAGS}
    with monkeypatch.context() as patch:
        patch.setattr(stopwatch, "DISPATCH", 0)  # one step a call
        patch.setattr(Training, "advance", crash_at(13))
        with pytest.raises(Crash):
            train(small, resume="force", **more)
    assert train(small, **more)["step"] == 18


def test_a_run_past_its_end_is_refused(copy, small):
    with pytest.raises(UserError, match="is at step 12, and this run would end at 7"):
        train(small, workdir=str(copy), num_steps=7, resume="force", **FLAGS)


def test_an_experiment_that_was_changed_is_said(small, tmp_path, monkeypatch, capsys):
    config = small.Config(workdir=str(tmp_path / "run"), num_steps=4, checkpoint_every=2)
    loop.train(config, small.build, small.load(config))
    capsys.readouterr()
    loop.train(config, small.build, small.load(config))
    assert "was changed" not in capsys.readouterr().err
    monkeypatch.setattr(environment, "source_digest", lambda config: "another")
    loop.train(config, small.build, small.load(config))
    assert "experiment's file was changed since the checkpoint" in capsys.readouterr().err


def test_an_evaluation_says_that_the_experiment_was_changed(small, tmp_path, monkeypatch, capsys):
    config = small.Config(workdir=str(tmp_path / "run"), num_steps=2)
    loop.train(config, small.build, small.load(config))
    opened = run_folder.Run(tmp_path / "run", small, config, "newest", frozenset())
    capsys.readouterr()
    evaluate(opened, "test")
    assert "was changed" not in capsys.readouterr().err
    monkeypatch.setattr(environment, "source_digest", lambda config: "another")
    evaluate(opened, "test")
    assert "tests.small was changed since this checkpoint" in capsys.readouterr().err
