"""A run that goes back is the run that restarts there: same bits, same log, same files."""

import functools
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import signals
from jaxdl.console import Training
from jaxdl.errors import TrainingError
from jaxdl.run import logger, pictures
from jaxdl.train import loop, resume, rewind, stopwatch, trainer
from tests import nan_targets
from tests.test_signals import around, at_step
from tests.train.test_loop import Crash, crash_at, without_seconds
from tests.train.test_nonfinite import poisoned, train

# The issue's: every event at the step that the run goes back to.
DIABETES = {"batch_size": 32, "num_steps": 36, "checkpoint_every": 10, "log_every": 5}
DIABETES |= {"eval_every": 10, "on_nonfinite": "rewind"}


@functools.cache
def diabetes():
    return nan_targets.build, nan_targets.load(nan_targets.Config(**DIABETES))


def train_diabetes(folder, **changes):
    config = nan_targets.Config(workdir=str(folder), **DIABETES | changes)
    return loop.train(config, *diabetes(), best=("loss", min))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return train_diabetes(folder), folder


def test_no_line_of_the_log_is_lost(whole):
    lines = [(line["step"], line["split"]) for line in logger.read_metrics(whole[1])]
    assert lines == [
        *[(5, "train"), (10, "train"), (10, "validation"), (15, "train"), (20, "train")],
        *[(20, "validation"), (25, "train"), (30, "train"), (30, "validation"), (35, "train")],
        *[(36, "train"), (36, "validation"), (36, "test")],
    ]
    assert len(rewind.read(whole[1])) > 3


def crash():
    raise Crash


def term():
    signal.raise_signal(signal.SIGTERM)


PLACES = {
    "in the first course": at_step(3),
    "beyond a bad step": at_step(14),
    "at a checkpoint": at_step(20),
    "before the list is written": around(rewind, "write"),
    "before going back": around(resume, "restore", 2),
    "before the log goes back": around(logger.RunLog, "go_back", 2),
    "before the folder goes back": around(trainer.Trainer, "sync_folder", 3),
    "before the events": around(trainer.Trainer, "pending_events", 3),
    "in the events": around(trainer.Trainer, "_evaluate", 2),
    "before the first checkpoint": at_step(17),
    "at the end": around(resume, "best_state"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("interrupt", [crash, term])
def test_an_interruption_anywhere_changes_nothing(place, interrupt, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        PLACES[place](patch, interrupt)
        with pytest.raises((Crash, signals.Stopped)):
            train_diabetes(tmp_path)
    summary = train_diabetes(tmp_path)
    assert summary["state_sha256"] == whole[0]["state_sha256"]
    assert summary["best_step"] == whole[0]["best_step"]
    assert without_seconds(tmp_path) == without_seconds(whole[1])
    assert rewind.read(tmp_path) == rewind.read(whole[1])


def keyed(small, config, *courses):
    """Like `poisoned`, with steps that are bad in the first course, in the second, and so on.

    All courses go back to step 0, and each has the key that the first bad step of the one before
    has made of its own.
    """
    data = small.data_of(small.plain(config))
    task = small.build(config, data.spec)
    keys = [task.init(jax.random.split(jax.random.key(config.seed))[0]).key]
    for steps in courses[:-1]:
        keys.append(jax.random.fold_in(keys[-1], min(steps)))

    def build(config, spec):
        task = small.build(config, spec)

        def step(state, batch):
            bad = jnp.bool_(False)
            for key, steps in zip(keys, courses, strict=True):
                same = (jax.random.key_data(state.key) == jax.random.key_data(key)).all()
                bad |= same & jnp.isin(state.step, jnp.array(steps))
            image = batch["image"] * jnp.where(bad, jnp.inf, 1.0)
            return task.step(state, batch | {"image": image})

        return task._replace(step=step)

    return build, data


@pytest.mark.parametrize("at", [1, 4, 5])
def test_a_signal_after_a_bad_step_saves_no_state_with_a_turned_key(
    at, small, tmp_path, monkeypatch
):
    """Step 3 is bad, and with the new key step 0, and beyond it step 3 is left out."""
    flags = {"num_steps": 8, "log_every": 6, "checkpoint_every": 8, "on_nonfinite": "rewind"}
    made = keyed(small, small.Config(**flags), [3], [0], [7])
    expected = loop.train(small.Config(workdir=str(tmp_path / "a"), **flags), *made)
    assert rewind.read(tmp_path / "a") == [[0, 3], [0, 0], [0, 7]]
    config = small.Config(workdir=str(tmp_path / "b"), **flags)
    with monkeypatch.context() as patch:
        course, restore = [0], resume.restore

        def counted(*given, **options):
            course[0] += 1
            return restore(*given, **options)

        def ask(self, step):
            if course[0] == 2 and step == at:
                term()

        patch.setattr(stopwatch, "DISPATCH", 0)  # one step a call
        patch.setattr(resume, "restore", counted)
        patch.setattr(Training, "advance", ask)
        with pytest.raises(signals.Stopped, match="checkpoint of step 0 made"):
            loop.train(config, *made)
    assert loop.train(config, *made)["state_sha256"] == expected["state_sha256"]
    assert without_seconds(tmp_path / "b") == without_seconds(tmp_path / "a")


def test_a_signal_after_a_bad_step_ends_a_run_that_it_would_end(small, tmp_path, monkeypatch):
    """A checkpoint would be of a step that is logged already, and have no metrics to log again."""
    flags = {"log_every": 3, "eval_every": 9}
    with pytest.raises(TrainingError, match="step 6 is not finite"):
        train(small, 6, workdir=str(tmp_path / "a"), **flags)
    with monkeypatch.context() as patch:
        at_step(7)(patch, term)
        with pytest.raises(TrainingError, match="step 6 is not finite"):
            train(small, 6, workdir=str(tmp_path / "b"), **flags)
    with pytest.raises(TrainingError, match="step 6 is not finite"):
        train(small, 6, workdir=str(tmp_path / "b"), **flags)
    assert without_seconds(tmp_path / "b") == without_seconds(tmp_path / "a")


def test_a_trace_ends_where_the_run_goes_back(small, tmp_path, monkeypatch):
    traces = []

    def start(folder):
        assert traces.count("start") == traces.count("stop")  # JAX raises
        traces.append("start")

    monkeypatch.setattr(jax.profiler, "start_trace", start)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: traces.append("stop"))
    train(small, 7, workdir=str(tmp_path), on_nonfinite="rewind", profile="6:17")
    assert traces == ["start", "stop", "start", "stop"]


def test_pictures_of_a_course_that_was_left_are_gone(small, tmp_path, monkeypatch):
    """After going back the run ends for --patience before the step of its last picture."""
    scores = iter([0.1, 0.2, 0.3, 0.4, 0.1])
    evaluate = trainer.Trainer._evaluate

    def scripted(self, state, split):
        values = evaluate(self, state, split)
        first = split is self.parts.data.validation and int(state.step) <= 8
        first = first and self.progress.best.step < 9
        return values | ({"accuracy": np.float64(next(scores, 0.1))} if first else {})

    monkeypatch.setattr(trainer.Trainer, "_evaluate", scripted)
    flags = {"num_steps": 18, "log_every": 2, "eval_every": 2, "checkpoint_every": 5}
    flags |= {"patience": 1, "on_nonfinite": "rewind"}
    config = small.Config(workdir=str(tmp_path / "run"), **flags)
    made = poisoned(small, small.plain(config), 8)
    shown = []

    def figures(task, state):
        shown.append(int(state.step))
        return {
            "step": pictures.Picture(np.full((2, 2, 3), int(state.step), np.uint8), "its number")
        }

    assert loop.train(config, *made, figures=figures)["step"] == 6
    assert shown == [2, 4, 6, 8, 6]
    folder = tmp_path / "run" / "plots" / "step"
    assert sorted(path.name for path in folder.iterdir()) == [
        "0000002.png",
        "0000004.png",
        "0000006.png",
    ]


def test_going_back_behind_the_step_at_which_another_config_was_forced(
    small, tmp_path, monkeypatch
):
    flags = {"workdir": str(tmp_path), "on_nonfinite": "rewind"}
    train(small, 9, num_steps=8, **flags)
    with monkeypatch.context() as patch:
        patch.setattr(stopwatch, "DISPATCH", 0)  # one step a call
        patch.setattr(Training, "advance", crash_at(9))
        with pytest.raises(Crash):
            train(small, 9, resume="force", **flags)
    assert train(small, 9, **flags)["step"] == 18
    assert rewind.read(tmp_path) == [[5, 9]]


@pytest.mark.parametrize("text", [None, "{", '{"detours": [[1]]}'])
def test_a_lost_list_costs_no_checkpoint(text, small, tmp_path, capsys):
    train(small, 7, workdir=str(tmp_path), on_nonfinite="rewind")
    path = tmp_path / rewind.NAME
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    capsys.readouterr()
    flags = {"on_nonfinite": "skip", "resume": "force", "num_steps": 20}
    assert train(small, 7, workdir=str(tmp_path), **flags)["step"] == 20
    assert "going on from step 18" in capsys.readouterr().err
    assert json.loads(path.read_text(encoding="utf-8")) == {"detours": [[5, 7]]}
