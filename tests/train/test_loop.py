import dataclasses
import io
import itertools
import json
import shutil
import signal

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxdl import files
from jaxdl.config import RunConfig, flag
from jaxdl.console import Training
from jaxdl.data import batches
from jaxdl.errors import TrainingError, UserError
from jaxdl.run import curves, environment, logger, run_folder, workdir
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.signals import Stopped
from jaxdl.tools.evaluate import evaluate
from jaxdl.train import loop, resume, stopwatch, trainer
from tests.conftest import forget_programs
from tests.small import DESCRIBED


def train(small, **changes):
    return small.run(small.Config(**changes))


def without_seconds(folder):
    lines = logger.read_metrics(folder)
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    from tests import small

    folder = tmp_path_factory.mktemp("whole") / "run"
    summary = train(small, workdir=str(folder), log_every=4, checkpoint_every=5)
    return folder, summary


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


class Crash(Exception):
    pass


def crash_at(crash):
    def advance(self, step):
        if step == crash:
            raise Crash

    return advance


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


def test_a_finished_run_is_not_trained_again(whole, small):
    folder, summary = whole
    before = without_seconds(folder)
    again = train(small, workdir=str(folder), log_every=4, checkpoint_every=5)
    assert again["state_sha256"] == summary["state_sha256"]
    assert without_seconds(folder) == before
    assert again["test/accuracy"] == summary["test/accuracy"]
    assert again["examples_per_second"] == summary["examples_per_second"] > 0


def scripted(monkeypatch, values):
    """Makes the validation accuracies these; a step that is evaluated again has the same again."""
    known, values = {}, iter(values)
    evaluate = trainer.Trainer._evaluate

    def instead(self, state, split):
        found = evaluate(self, state, split)
        if split is self.parts.data.validation:
            step = int(state.step)
            known[step] = known[step] if step in known else next(values)
            found["accuracy"] = np.float64(known[step])
        return found

    monkeypatch.setattr(trainer.Trainer, "_evaluate", instead)


def checkpoints(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


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


@pytest.mark.parametrize("batch_size", [1000])
def test_nothing_is_written_for_a_batch_too_large(batch_size, small, tmp_path):
    with pytest.raises(UserError, match="--batch_size=1000"):
        train(small, workdir=str(tmp_path / "run"), batch_size=batch_size)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def copy(whole, tmp_path):
    """The whole run's folder, to be harmed."""
    shutil.copytree(whole[0], tmp_path / "copy")
    return tmp_path / "copy"


FLAGS = {"log_every": 4, "checkpoint_every": 5}


def on_other_data(small, folder, **flags):
    config = small.Config(workdir=str(folder), **FLAGS, **flags)
    data = small.load(config)
    spec = dataclasses.replace(data.spec, fingerprint="other bytes")
    data = dataclasses.replace(data, spec=spec)
    return loop.train(config, small.build, data)


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


def test_the_rate_counts_what_a_row_stands_for(small, tmp_path):
    def examples_a_flop(per_row):
        config = small.Config(workdir=str(tmp_path / str(per_row)), **FLAGS)
        data = small.load(config)
        spec = dataclasses.replace(data.spec, per_row=per_row)
        summary = loop.train(config, small.build, dataclasses.replace(data, spec=spec))
        return summary["examples_per_second"] / summary["flops_per_second"]

    assert examples_a_flop(40) == pytest.approx(40 * examples_a_flop(1), rel=0.01)


def test_a_model_of_another_shape_is_not_forced(copy, small, monkeypatch):
    monkeypatch.setattr(small, "Net", lambda dropout, width: OtherNet())
    forget_programs()
    with pytest.raises(UserError, match="of another model"):
        train(small, workdir=str(copy), resume="force", **FLAGS)
    forget_programs()


class OtherNet(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


def test_other_versions_are_said(copy, small, monkeypatch, capsys):
    versions = environment.versions(1) | {"jax": "99.0"}
    monkeypatch.setattr(environment, "versions", lambda devices: versions)
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
