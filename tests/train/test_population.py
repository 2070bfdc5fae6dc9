"""Members of a population are the runs that they would be alone."""

import importlib
import json

import numpy as np
import pytest

from experiments.benchmarks.accelerator.short import SHORT
from jaxdl import signals
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
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]


def train(name, folder, mapping, *flags):
    """Trains SETTINGS together and alone; yields both folders."""
    runs = []
    for n, setting in enumerate(SETTINGS):
        run, config = arguments(name, folder / f"member-{n}", *flags, *setting)
        runs.append(population.Run(run, config))
    outcomes = population.train(runs, mapping, signals.Polled())
    for n, setting in enumerate(SETTINGS):
        run, config = arguments(name, folder / f"alone-{n}", *flags, *setting)
        summary = run(config)
        about = json.loads((folder / f"member-{n}" / "environment.json").read_text())
        assert about["population"] == {"members": 3, "map": mapping}
        yield folder / f"member-{n}", folder / f"alone-{n}", outcomes[n], summary


@pytest.mark.parametrize("name", KINDS)
def test_a_member_has_the_bits_of_the_run_alone(name, tmp_path):
    for member, alone, outcome, summary in train(name, tmp_path, "sequential"):
        assert outcome["state_sha256"] == summary["state_sha256"]
        assert log(member) == log(alone)


@pytest.mark.parametrize("name", KINDS)
def test_mapped_members_are_equal_up_to_rounding(name, tmp_path):
    few = ["--log_every=1", "--num_steps=3", "--eval_every=3", "--checkpoint_every=3"]
    for member, alone, _, _ in train(name, tmp_path, "vmap", *few):
        for mine, other in zip(log(member), log(alone), strict=True):
            assert mine.keys() == other.keys()
            numbers = [(mine[k], other[k]) for k in mine if not isinstance(mine[k], str)]
            np.testing.assert_allclose(*zip(*numbers, strict=True), rtol=1e-4, atol=1e-5)
