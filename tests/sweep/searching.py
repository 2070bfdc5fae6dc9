"""Searches over Iris, with an engine that runs their trials in this process."""

import json
import sys

import pytest

from experiments import iris_mlp
from jaxdl.__main__ import run as command
from jaxdl.errors import Paused
from jaxdl.flags import parse_flags
from jaxdl.sweep import ledger, local, outcome
from jaxdl.sweep.ledger import Ledger

FLAGS = ["--num_steps=60", "--eval_every=5", "--log_every=20"]
RATES = "--learning_rate=0.001,0.3,0.01,0.1"
HALVING = ["--search=halving", "--eta=2", "--min_steps=10"]
WANTED = {  # the step and the state of each trial of a halving of these rates
    "learning_rate=0.001": (10, "paused"),
    "learning_rate=0.3": (60, "done"),
    "learning_rate=0.01": (10, "paused"),
    "learning_rate=0.1": (20, "paused"),
}


class Crash(BaseException):
    """The end of a driver."""


def run_here(book, names, jobs, retries):
    """Stands in for `local.run`."""
    del jobs, retries
    for name in names:
        line = book.lines[name]
        if not outcome.result(line):
            status = 0
            try:
                config = parse_flags(iris_mlp.Config, ledger.argv(line)[3:])
                iris_mlp.run(config)
            except Paused:
                pass
            except Exception as error:
                print(error, file=sys.stderr)
                status = 1
            book.set(name, starts=line["starts"] + 1)
        else:
            status = 0
        ledger.record_end(book, name, status, again=False)


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(local, "run", run_here)


def search(folder, *flags, fixed=FLAGS):
    """Runs a sweep with so many options and flags."""
    command(["sweep", "experiments.iris_mlp", f"--workdir={folder}", *flags, "--", *fixed])


def lines(folder):
    return Ledger.read(folder).lines


def steps(folder):
    """The step that each trial has come to, and its state."""
    return {name: (line["step"], line["state"]) for name, line in lines(folder).items()}


def digest(folder):
    return json.loads((folder / "summary.json").read_text("utf-8"))["state_sha256"]


def alone(folder, *flags, fixed=FLAGS):
    """SHA-256 of the final state of a run that was never paused."""
    iris_mlp.run(parse_flags(iris_mlp.Config, [*fixed, *flags, f"--workdir={folder}"]))
    return digest(folder)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Folder of a halving that has ended, which no test changes."""
    folder = tmp_path_factory.mktemp("search") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "run", run_here)
        search(folder, RATES, *HALVING)
    return folder
