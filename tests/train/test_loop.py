"""The training loop: same bits over crashes, its folder, its ends, and what it refuses."""

import dataclasses
import io
import itertools
import json
import shutil
import signal

import jax
import numpy as np
import pytest

from jaxdl import files
from jaxdl.config import RunConfig
from jaxdl.console import Training
from jaxdl.data import batches
from jaxdl.errors import TrainingError, UserError
from jaxdl.run import curves, logger, run_folder, workdir
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.signals import Stopped
from jaxdl.tools.evaluate import evaluate
from jaxdl.train import loop, resume, stopwatch, trainer
from tests.conftest import forget_programs
from tests.small import DESCRIBED
from tests.train.whole import (
    FLAGS,
    Crash,
    checkpoints,
    crash_at,
    scripted,
    train,
    without_seconds,
)


def test_run_folder_holds_what_the_design_says(whole):
    folder, summary = whole
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("config.json", "data.json", "flags.txt", "environment.json", "metrics.jsonl"),
        *("summary.json", "checkpoints", "plots", "tensorboard", ".lock"),
    }
    assert logger.read_summary(folder) == summary
    for name in ("test/accuracy", "best/test/accuracy", "best/validation/accuracy", "train/loss"):
        assert 0 <= summary[name]
    assert summary["step"] == 12
    assert len(summary["state_sha256"]) == 64
    assert summary["parameters"] == 8 * 8 * 3 * 16 + 16 + 2 * 16 + 16 * 10 + 10
    lines = logger.read_metrics(folder)
    assert [line["step"] for line in lines if line["split"] == "train"] == [4, 8, 12]
    assert [line["step"] for line in lines if line["split"] == "validation"] == [6, 12]
    assert [line["step"] for line in lines if line["split"] == "test"] == [12]
    about = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    assert about["dataset"]["name"] == "synthetic"
    assert (folder / "plots" / "curves.png").stat().st_size > 5000
    assert len(list((folder / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize("crash", [1, 3, 5, 6, 9, 12])
def test_a_crash_anywhere_changes_no_bit(crash, whole, small, tmp_path, monkeypatch):
    flags = {"workdir": str(tmp_path / "run"), "log_every": 4, "checkpoint_every": 5}
    with monkeypatch.context() as patch:
        patch.setattr(stopwatch, "DISPATCH", 0)  # one step a call
        patch.setattr(Training, "advance", crash_at(crash))
        with pytest.raises(Crash):
            train(small, **flags)
    summary = train(small, **flags)
    assert summary["state_sha256"] == whole[1]["state_sha256"]
    assert summary["best_step"] == whole[1]["best_step"]
    assert without_seconds(tmp_path / "run") == without_seconds(whole[0])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_in_a_checkpoint_and_resumes(
    number, status, whole, small, tmp_path, monkeypatch
):
    def advance(self, step):
        if step == 7:
            signal.raise_signal(number)

    flags = {"workdir": str(tmp_path / "run"), "log_every": 4, "checkpoint_every": 5}
    with monkeypatch.context() as patch:
        patch.setattr(stopwatch, "DISPATCH", 0)  # one step a call
        patch.setattr(Training, "advance", advance)
        with pytest.raises(Stopped) as stopped:
            train(small, **flags)
    assert stopped.value.status == status
    assert (tmp_path / "run" / "checkpoints" / "7").is_dir()
    assert train(small, **flags)["state_sha256"] == whole[1]["state_sha256"]
    assert without_seconds(tmp_path / "run") == without_seconds(whole[0])


def test_the_log_interval_changes_no_bit(whole, small, tmp_path):
    config = small.Config(workdir=str(tmp_path / "run"), log_every=1, eval_every=5)
    data = small.load(config)
    summary = loop.train(config, small.build, data)  # compiled for this config
    assert summary["state_sha256"] == whole[1]["state_sha256"]


def test_another_seed_is_another_run(whole, small, tmp_path):
    summary = train(small, workdir=str(tmp_path / "run"), seed=1)
    assert summary["state_sha256"] != whole[1]["state_sha256"]


def test_the_best_and_the_newest_two_are_kept(small, tmp_path, monkeypatch):
    scripted(monkeypatch, [0.1, 0.9, 0.3, 0.3, 0.9, 0.2])
    train(small, workdir=str(tmp_path), eval_every=2, num_steps=12, checkpoint_every=3)
    assert checkpoints(tmp_path) == [4, 9, 12]  # 0.9 for the first time, and the newest


def test_patience_ends_a_run_and_counts_on_over_a_crash(small, tmp_path, monkeypatch):
    scores = [0.1, 0.9, 0.3, 0.9, 0.4, 0.5]
    flags = {"eval_every": 2, "num_steps": 12, "checkpoint_every": 3, "patience": 3}
    scripted(monkeypatch, scores)
    summary = train(small, workdir=str(tmp_path / "a"), **flags)
    assert (summary["step"], summary["best_step"]) == (10, 4)
    for crash in (5, 7, 9, 10):
        folder = tmp_path / str(crash)
        with monkeypatch.context() as patch:
            scripted(patch, scores)
            with patch.context() as inner:
                inner.setattr(stopwatch, "DISPATCH", 0)  # one step a call
                inner.setattr(Training, "advance", crash_at(crash))
                with pytest.raises(Crash):
                    train(small, workdir=str(folder), **flags)
            again = train(small, workdir=str(folder), **flags)
        assert again["step"] == 10
        assert again["state_sha256"] == summary["state_sha256"]
        assert without_seconds(folder) == without_seconds(tmp_path / "a")


def test_patience_wants_an_improvement_and_ends_with_the_best(small, tmp_path, monkeypatch):
    """Scores that creep up: with a least improvement, patience ends while the best is the last."""
    scores = [0.1, 0.5, 0.55, 0.6, 0.62, 0.61, 0.9]
    flags = {"eval_every": 2, "num_steps": 14, "checkpoint_every": 3, "patience": 3}
    scripted(monkeypatch, scores)
    creeping = train(small, workdir=str(tmp_path / "a"), min_improvement=0.2, **flags)
    assert (creeping["step"], creeping["best_step"]) == (10, 10)
    scripted(monkeypatch, [0.1, 0.9, 0.3, 0.3, 0.3])
    ended = train(small, workdir=str(tmp_path / "b"), **flags)
    assert (ended["step"], ended["best_step"]) == (10, 4)
    assert ended["test/loss"] == ended["best/test/loss"]
    (tested,) = [x for x in logger.read_metrics(tmp_path / "b") if x["split"] == "test"]
    assert tested["step"] == 4  # of the state that was tested
    monkeypatch.undo()
    kept = small.Config(workdir=str(tmp_path / "b"), **flags)
    found = evaluate(run_folder.Run(tmp_path / "b", small, kept, "best", frozenset()), "test")
    assert found["step"] == 4
    assert found["loss"] == ended["test/loss"]


def test_a_run_whose_end_is_not_finite_has_failed(small, tmp_path, monkeypatch):
    """The metrics of a step are of before its update: the last one is seen by evaluation alone."""
    evaluate = trainer.Trainer._evaluate

    def diverged(self, state, split):
        found = evaluate(self, state, split)
        return found | {"loss": np.float64("inf")} if split is self.parts.data.test else found

    monkeypatch.setattr(trainer.Trainer, "_evaluate", diverged)
    with pytest.raises(TrainingError, match="test/loss is inf: lower --learning_rate"):
        train(small, workdir=str(tmp_path / "run"), num_steps=2)
    assert files.read_json(tmp_path / "run" / "summary.json")["test/loss"] is None


def test_an_evaluation_without_a_number_is_never_the_best(small, tmp_path, monkeypatch):
    scripted(monkeypatch, [float("nan"), 0.2, 0.1])
    summary = train(small, workdir=str(tmp_path / "run"), num_steps=6, eval_every=2)
    assert summary["best_step"] == 4


def test_nothing_compiles_after_the_first_epoch(small, tmp_path, monkeypatch):
    def compiled(steps):
        scripted(monkeypatch, itertools.count())  # the last state is the best: none is restored
        jax.clear_caches()
        forget_programs()
        events = []
        jax.monitoring.register_event_duration_secs_listener(
            lambda name, *_, **__: events.append(name) if name.endswith("_trace_duration") else None
        )
        train(small, workdir=str(tmp_path / str(steps)), num_steps=steps, log_every=1, eval_every=2)
        jax.monitoring.clear_event_listeners()
        return len(events)

    assert compiled(6) == compiled(18) > 0


def test_no_host_sync_inside_an_interval(small, tmp_path, monkeypatch):
    """Between two events the loop reads no array; nor waits for one, once calls have grown."""
    seen, reading = [], type(jax.numpy.zeros(()))._value

    class Watched:
        def __get__(self, array, owner=None):
            if array is not None:
                seen.append(("read", step[0]))
            return reading.__get__(array, owner)

    step = [0]
    monkeypatch.setattr(type(jax.numpy.zeros(())), "_value", Watched())
    wait = jax.block_until_ready
    monkeypatch.setattr(
        jax, "block_until_ready", lambda x: (seen.append(("wait", step[0])), wait(x))
    )
    monkeypatch.setattr(Training, "advance", lambda self, n: step.__setitem__(0, n))
    every = {"log_every": 16, "eval_every": 16, "checkpoint_every": 16}
    train(small, workdir=str(tmp_path), num_steps=64, **every)
    assert {n for what, n in seen if what == "read"} <= {0, 16, 32, 48, 64}
    # Calls grow from one step on, so that none is long before it is known how long a step takes.
    assert {n for what, n in seen if what == "wait"} <= {0, 1, 2, 4, 8, 16, 32, 48, 64}
    assert {("read", 48), ("wait", 48)} <= set(seen)


def test_two_epochs_see_each_example_once_an_epoch_in_new_orders():
    key = jax.random.key(0)
    orders = [np.asarray(batches.epoch_order(key, epoch, 50, 10)) for epoch in range(2)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(50))
    assert not np.array_equal(*orders)


@pytest.mark.parametrize("batch_size", [1000])
def test_nothing_is_written_for_a_batch_too_large(batch_size, small, tmp_path):
    with pytest.raises(UserError, match="--batch_size=1000"):
        train(small, workdir=str(tmp_path / "run"), batch_size=batch_size)
    assert not (tmp_path / "run").exists()


def test_the_rate_counts_what_a_row_stands_for(small, tmp_path):
    def examples_a_flop(per_row):
        config = small.Config(workdir=str(tmp_path / str(per_row)), **FLAGS)
        data = small.load(config)
        spec = dataclasses.replace(data.spec, per_row=per_row)
        summary = loop.train(config, small.build, dataclasses.replace(data, spec=spec))
        return summary["examples_per_second"] / summary["flops_per_second"]

    assert examples_a_flop(40) == pytest.approx(40 * examples_a_flop(1), rel=0.01)


def test_what_fails_at_the_end_does_not_cost_the_figures(small, tmp_path, monkeypatch):
    config = small.Config(workdir=str(tmp_path / "run"), num_steps=3)
    data = small.load(config)

    def final_eval(task, state, folder):
        raise ImportError("No module named 'sacrebleu'")

    def fails(*args):
        raise ValueError("not a backend")

    monkeypatch.setattr(curves, "curves", fails)
    with pytest.raises(TrainingError, match="summary is written, but: No module named 'sacrebleu'"):
        loop.train(config, small.build, data, final_eval=final_eval)
    assert logger.read_summary(tmp_path / "run")["step"] == 3
    monkeypatch.undo()
    ends = loop.train(config, small.build, data, final_eval=lambda *_: {"test/bleu": 1.0})
    assert logger.read_summary(tmp_path / "run") == ends
    assert ends["test/bleu"] == 1.0


def test_little_room_is_said(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(resume.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
    train(small, workdir=str(tmp_path), num_steps=1)
    assert "warning: 0.0 MB free" in capsys.readouterr().err


def test_a_summary_is_json_whatever_the_numbers(tmp_path):
    made = logger.RunLog(tmp_path, RunConfig(), DESCRIBED, [])
    made.summarize({"test/loss": float("nan"), "step": 3, "state_sha256": "x"})
    made.close()
    json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert logger.read_summary(tmp_path) == {"test/loss": None, "step": 3, "state_sha256": "x"}


class Closed(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


def test_a_closed_stderr_does_not_end_a_run(small, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr", Closed())
    assert train(small, workdir=str(tmp_path), num_steps=1)["step"] == 1


def test_a_model_that_cannot_be_built_leaves_no_folder(small, tmp_path):
    config = small.Config(workdir=str(tmp_path / "run"))
    data = small.load(config)

    def init(key):
        raise UserError("heads=3 do not divide features=128: give others")

    with pytest.raises(UserError, match="heads=3"):
        loop.train(config, lambda c, spec: small.build(c, spec)._replace(init=init), data)
    assert not (tmp_path / "run").exists()


def moved(run):
    run.rename(run.with_name("moved"))


def unlocked(run):
    (run / ".lock").unlink()


def taken_over(run):
    (run / ".lock").unlink()
    workdir.lock_folder(run, RunConfig(resume="force"))


@pytest.mark.parametrize("harm", [moved, unlocked, taken_over])
def test_a_folder_that_is_not_the_runs_any_more_ends_it(harm, small, tmp_path, monkeypatch):
    run, advance = tmp_path / "run", Training.advance

    def then(bar, step):
        if step == 4:
            harm(run)
        advance(bar, step)

    monkeypatch.setattr(Training, "advance", then)
    monkeypatch.setattr(stopwatch, "DISPATCH", 0)  # one step a call
    with pytest.raises(TrainingError, match=r"\.lock is gone: the run folder was moved or deleted"):
        train(small, workdir=str(run), log_every=2)
    assert not (run / "summary.json").exists()
    if harm is moved:
        assert not run.exists()
        monkeypatch.setattr(Training, "advance", advance)
        again = train(small, workdir=str(tmp_path / "moved"), log_every=2)
        whole = train(small, workdir=str(tmp_path / "whole"), log_every=2)
        assert again["state_sha256"] == whole["state_sha256"]


def test_checkpoints_that_are_deleted_while_a_run_goes_on_are_made_again(
    small, tmp_path, monkeypatch, capsys
):
    run, advance = tmp_path / "run", Training.advance

    def then(bar, step):
        if step == 8:
            shutil.rmtree(run / "checkpoints")
        advance(bar, step)

    monkeypatch.setattr(Training, "advance", then)
    monkeypatch.setattr(stopwatch, "DISPATCH", 0)
    train(small, workdir=str(run), checkpoint_every=3, log_every=2)
    checkpoints = Checkpoints(run / "checkpoints")
    assert checkpoints.steps()[-1] == 12
    assert all(checkpoints.read(step) for step in checkpoints.steps())
