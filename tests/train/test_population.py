"""Members of a population are the runs that they would be alone."""

import dataclasses
import importlib
import json
from typing import NamedTuple

import jax
import numpy as np
import pytest

from experiments.benchmarks.accelerator.short import SHORT
from jaxdl import signals
from jaxdl.data.batches import Dataset
from jaxdl.errors import TrainingError, UserError
from jaxdl.flags import parse_flags
from jaxdl.train import population, seats

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
            assert about["population"] == {"members": 3, "devices": 1, "map": mapping}
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
    shared = seats.Shared("sequential", 3, 1, signals.Polled())
    assert shared.dataset(data) is data
    assert shared.dataset(again) is data
    x = data.train["x"].copy()
    x[0] += 1
    other = Dataset(data.spec, {**data.train, "x": x}, data.validation, data.test)
    assert shared.dataset(other) is other


def test_auto_keeps_the_faster_map():
    """The first turn of each map compiles, and does not count."""
    choice = population.Choice(["vmap", "sequential"])
    turns = {"vmap": [9.0, 0.2, 0.3], "sequential": [5.0, 0.1, 0.1]}  # seconds of ten steps
    order = []
    for _ in range(6):
        order.append(choice.name)
        is_choice = choice.note(10, turns[choice.name].pop(0))
    assert order == ["vmap", "sequential"] * 3
    assert is_choice
    assert choice.name == "sequential"
    assert choice.text == (
        "members take their steps by sequential (a step of one: vmap 20 ms, sequential 10 ms)"
    )
    assert not choice.note(10, 7.0)  # it stays, however long steps take
    assert choice.name == "sequential"


def test_one_map_is_not_timed():
    choice = population.Choice(["devices"])
    assert not any(choice.note(1, 1.0) for _ in range(9))
    assert choice.text == ""


def test_auto_has_the_bits_of_the_runs_alone_and_says_what_it_chose(tmp_path, capsys, monkeypatch):
    """The device of these tests is one, on which both maps are the same."""
    names = ["devices", "sequential"]
    monkeypatch.setattr(population, "candidates", lambda *_: names)
    few = ["--num_steps=16", "--log_every=2", "--eval_every=16"]
    flags = [[f"--seed={n}", *few] for n in range(3)]
    runs = [arguments("iris_mlp", tmp_path / str(n), *flags[n]) for n in range(3)]
    together = [population.Run(*run) for run in runs]
    outcomes = population.train(together, "auto", signals.Polled())
    printed = capsys.readouterr().err
    for n, outcome in enumerate(outcomes):
        run, config = arguments("iris_mlp", tmp_path / f"alone-{n}", *flags[n])
        if jax.device_count() == 1:  # a run alone would train on all of them
            assert outcome["state_sha256"] == run(config)["state_sha256"]
        about = json.loads((tmp_path / str(n) / "environment.json").read_text("utf-8"))
        assert about["population"]["map"] in names
        assert printed.count(f"by {about['population']['map']} ") == 3


def test_what_auto_chooses_from():
    class Device(NamedTuple):
        platform: str

    assert population.candidates("auto", [Device("cpu")]) == ["sequential"]
    assert population.candidates("auto", [Device("cpu")] * 2) == ["devices", "sequential"]
    assert population.candidates("auto", [Device("gpu")]) == ["vmap", "sequential"]
    assert population.candidates("auto", [Device("gpu")] * 2) == ["vmap", "devices"]
    assert population.candidates("vmap", [Device("cpu")]) == ["vmap"]
    with pytest.raises(UserError, match="--map=all: give one of auto, vmap"):
        population.candidates("all", [])
