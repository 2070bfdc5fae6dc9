"""--average_last: the average of the last checkpoints is evaluated beside the last state."""

import shutil

import jax
import numpy as np
import pytest

from jaxdl import parameter_groups
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.tasks.supervised import eval_variables, with_average
from jaxdl.train import loop, trainer
from jaxdl.train.evaluate import evaluate_split
from jaxdl.train.events import EventSchedule
from jaxdl.train.step_spec import device_operands, step_spec
from tests import tunable

DATA = tunable.load(tunable.Config())
FLAGS = {"num_steps": 9, "average_last": 3, "eval_every": 9}


def train(folder, **changes):
    return loop.train(tunable.Config(workdir=str(folder), **changes), tunable.build, DATA)


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("averaged") / "run"
    return folder, train(folder, **FLAGS)


@pytest.mark.parametrize("flags", [{}, {"ema_decay": 0.5}, {"optimizer": "schedule_free"}])
def test_the_metrics_are_those_of_the_mean_of_what_is_evaluated(flags, averaged, tmp_path):
    folder, summary = averaged
    if flags:
        folder = tmp_path / "run"
        summary = train(folder, **FLAGS, **flags)
    config = tunable.Config(**FLAGS, **flags)
    task, mesh = tunable.build(config, DATA.spec), sharding.mesh(config)
    like = sharding.with_sharding(
        jax.eval_shape(task.init, jax.random.key(0)), sharding.replicated(mesh)
    )
    checkpoints = Checkpoints(folder / "checkpoints")
    assert set(checkpoints.steps()) >= {6, 8, 9}
    states = [checkpoints.restore(step, like, part=".state").state for step in (6, 8, 9)]
    flat = [parameter_groups.flatten(eval_variables(state)) for state in states]
    mean = {k: np.float32(np.mean([np.float64(f[k]) for f in flat], axis=0)) for k in flat[0]}
    variables = parameter_groups.unflatten(eval_variables(states[-1]), mean)
    spec = step_spec(tunable.build, config, DATA, mesh)
    state = with_average(states[-1], variables)
    expected = evaluate_split(spec, device_operands(config, DATA.spec, mesh), state, DATA.test)
    for name, value in expected.items():
        assert summary[f"average/test/{name}"] == pytest.approx(float(value), rel=1e-6)
    assert summary["average/test/loss"] != summary["test/loss"]


class Crash(Exception):
    pass


@pytest.mark.parametrize("crash", [3, 6, 7, 9])
def test_a_crash_changes_no_figure(crash, averaged, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    advance = trainer.Trainer.advance

    def crashing(self):
        advance(self)
        if self.progress.step >= crash:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "advance", crashing)
        with pytest.raises(Crash):
            train(folder, **FLAGS)
    summary = train(folder, **FLAGS)
    names = [name for name in summary if name.startswith("average/")]
    assert sorted(names) == ["average/test/accuracy", "average/test/loss"]
    assert all(summary[name] == averaged[1][name] for name in names)


def test_the_average_changes_nothing_else(averaged, tmp_path):
    plain = train(tmp_path / "run", **FLAGS | {"average_last": 0})
    for name, value in plain.items():
        if name not in ("seconds", "examples_per_second", "flops_per_second", "share_of_peak"):
            assert averaged[1][name] == value, name
    assert not [name for name in plain if name.startswith("average")]


def test_a_damaged_checkpoint_costs_its_figures_alone(averaged, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(averaged[0], folder)
    (folder / "checkpoints" / "6" / "manifest.json").write_text("{}", encoding="utf-8")
    summary = train(folder, **FLAGS)
    assert summary["state_sha256"] == averaged[1]["state_sha256"]
    assert "average/test/loss" not in summary
    assert "no figures of the average of --average_last" in capsys.readouterr().err


def test_more_checkpoints_than_there_are_is_refused(tmp_path):
    with pytest.raises(UserError, match="--average_last=6: the run has 5 checkpoints in 9 steps"):
        train(tmp_path / "run", **FLAGS | {"average_last": 6})
    assert not (tmp_path / "run").exists()


def test_the_last_checkpoints_of_a_schedule():
    schedule = EventSchedule(100, 10, 10, 10, checkpoint_every=30)
    assert schedule.last_checkpoints(100, 3) == [60, 90, 100]
    assert schedule.last_checkpoints(90, 3) == [30, 60, 90]
    assert schedule.last_checkpoints(40, 5) == [30, 40]  # early stopping
    assert schedule.last_checkpoints(40, 0) == []
    assert schedule._replace(ends=(70,)).last_checkpoints(100, 3) == [70, 90, 100]
