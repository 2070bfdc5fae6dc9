"""Members of a population are the runs that they would be alone."""

import dataclasses
import importlib
import json

import numpy as np
import pytest

from experiments.benchmarks.accelerator.short import SHORT
from jaxdl import signals
from jaxdl.data.batches import Dataset
from jaxdl.errors import TrainingError
from jaxdl.flags import parse_flags
from jaxdl.train import population

# Two seeds, and two learning rates of one of them: one program.
SETTINGS = [["--seed=1"], ["--seed=2"], ["--seed=2", "--learning_rate=0.02"]]
KINDS = {
    "iris_mlp": [],  # every seed has a split, and so statistics, of its own
    "tabular_mlp": ["--members=2", "--hidden=8"],
    "mnist_lenet": [],
    "mnist_vae": [],
    "mnist_gan": [],
    "multi30k_transformer": [],
    "cartpole_ppo": [],
    "cartpole_dqn": [],
    "cartpole_reinforce": [],
    "grid_qlearning": [],
}


def arguments(name, folder, *flags):
    module = importlib.import_module(f"experiments.{name}")
    words = [*SHORT[name], *KINDS[name], *flags, f"--workdir={folder}"]
    return module.run, parse_flags(module.Config, words)


def log(folder):
    """Lines of a run's log without its times."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]


@pytest.mark.parametrize("name", KINDS)
def test_members_are_the_runs_alone(name, tmp_path):
    few = ["--log_every=1", "--num_steps=4", "--eval_every=2", "--checkpoint_every=4"]

    def members(mapping):
        return [
            arguments(name, tmp_path / f"{mapping}-{n}", *few, *setting)
            for n, setting in enumerate(SETTINGS)
        ]

    runs = members("alone")
    alone = [run(config) for run, config in runs]
    for mapping in ("sequential", "vmap"):
        together = [population.Run(run, config) for run, config in members(mapping)]
        outcomes = population.train(together, mapping, signals.Polled())
        for n, outcome in enumerate(outcomes):
            mine, other = (tmp_path / f"{how}-{n}" for how in (mapping, "alone"))
            about = json.loads((mine / "environment.json").read_text("utf-8"))
            assert about["population"] == {"members": 3, "map": mapping}
            if mapping == "sequential":
                assert outcome["state_sha256"] == alone[n]["state_sha256"]
                assert log(mine) == log(other)
            else:
                assert_close(log(mine), log(other))


def assert_close(lines, others):
    """Logs of training are equal up to rounding, which Adam amplifies in its first steps."""
    for mine, other in zip(lines, others, strict=True):
        assert mine.keys() == other.keys()
        if mine["split"] == "train" and mine["step"] <= 2:
            numbers = [(mine[k], other[k]) for k in mine if isinstance(mine[k], float)]
            np.testing.assert_allclose(*zip(*numbers, strict=True), rtol=2e-3, atol=1e-4)


def test_members_of_other_programs_are_mapped_by_themselves(tmp_path):
    """A neutral value is a constant of the program, which these members so do not share."""
    few = ["--log_every=1", "--num_steps=3", "--eval_every=3"]
    flags = [["--l2=0"], ["--l2=0.5"], ["--l2=0.5", "--seed=1"]]
    runs = []
    for n, more in enumerate(flags):
        run, config = arguments("mnist_lenet", tmp_path / str(n), *few, *more)
        runs.append(population.Run(run, config))
    population.train(runs, "vmap", signals.Polled())
    for n, more in enumerate(flags):
        run, config = arguments("mnist_lenet", tmp_path / f"alone-{n}", *few, *more)
        run(config)
        assert_close(log(tmp_path / str(n)), log(tmp_path / f"alone-{n}"))


def test_a_config_without_a_seat_does_not_train_alone_in_silence(tmp_path):
    run, config = arguments("iris_mlp", tmp_path / "run", "--num_steps=2")
    copied = population.Run(lambda config: run(dataclasses.replace(config)), config)
    (outcome,) = population.train([copied], "sequential", signals.Polled())
    assert isinstance(outcome, TrainingError)
    assert "pass the config that `run` gets to `loop.train`" in str(outcome)


def test_one_member_that_fails_ends_alone(tmp_path):
    def fails(config):
        raise ValueError("a bug")

    run, config = arguments("iris_mlp", tmp_path / "run", "--num_steps=2")
    outcomes = population.train(
        [population.Run(fails, config), population.Run(run, config)], "vmap", signals.Polled()
    )
    assert str(outcomes[0]) == "a bug"
    assert outcomes[1]["step"] == 2


def test_only_equal_data_are_shared():
    module = importlib.import_module("experiments.iris_mlp")
    data, again = (module.load(module.Config()) for _ in range(2))
    shared = population.Shared("sequential", 3, signals.Polled())
    assert shared.dataset(data) is data
    assert shared.dataset(again) is data
    x = data.train["x"].copy()
    x[0] += 1
    other = Dataset(data.spec, {**data.train, "x": x}, data.validation, data.test)
    assert shared.dataset(other) is other
