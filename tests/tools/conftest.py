"""Fixtures of the commands: trained models, and a record with its reproduction."""

import json
import shutil
import subprocess
import sys

import jax
import pytest

from experiments.benchmarks import publish
from jaxdl.__main__ import run as command
from jaxdl.models.mlp import MLP
from jaxdl.tasks import vision
from tests.export.models import in_memory, train
from tests.tools.reproductions import FLAGS


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    folder = tmp_path_factory.mktemp("iris") / "run"
    train("iris_mlp", folder, "--num_epochs=40", "--task=setosa")
    return folder


@pytest.fixture(scope="session")
def trained_lenet(tmp_path_factory):
    """A LeNet-5 that is right on most digits, but not on all."""
    folder = tmp_path_factory.mktemp("runs") / "lenet"
    train("mnist_lenet", folder, "--dataset=embedded", "--image_size=12", "--num_steps=60")
    return folder


@pytest.fixture
def lenet(trained_lenet, tmp_path):
    return shutil.copytree(trained_lenet, tmp_path / "lenet")


@pytest.fixture(scope="module")
def pictures():
    """An untrained classifier of grey images, and its data."""
    config = vision.ClassifierConfig(dataset="embedded", image_size=8, batch_size=2)
    data = vision.load(config)
    task = vision.classify(config, MLP(10, ()), data.spec)
    return in_memory(task, task.init(jax.random.key(0)), data.spec, config)


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Three seeds of a sweep, which is a folder of runs."""
    folder = tmp_path_factory.mktemp("runs") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxdl.sweep.table.report", lambda *_: None)
        command(
            ["sweep", "experiments.iris_mlp", "--seed=0..2", f"--workdir={folder}", "--", *FLAGS]
        )
    return folder


@pytest.fixture(scope="session")
def published(runs, tmp_path_factory):
    """The same runs as a file of published rows."""
    results = tmp_path_factory.mktemp("results")
    for run in sorted((runs / "trials").iterdir()):
        described = json.loads((run / "environment.json").read_text(encoding="utf-8"))
        described["git"] = {"commit": "c0ffee", "dirty": False}
        (run / "environment.json").write_text(json.dumps(described), encoding="utf-8")
        path = publish.add_run(run, results)
    return path


@pytest.fixture(scope="session")
def repeated(published, tmp_path_factory):
    """Folder of a reproduction of the published row, and its output."""
    folder = tmp_path_factory.mktemp("repeated") / "work"
    words = ["reproduce", str(published), f"--workdir={folder}", "--", *FLAGS]
    done = subprocess.run(
        [sys.executable, "-m", "jaxdl", *words], capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def work(repeated, tmp_path):
    """A copy of the finished reproduction: its seeds need no training."""
    return shutil.copytree(repeated[0], tmp_path / "work")
