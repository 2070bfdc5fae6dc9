"""Fixtures of the commands: trained models."""

import jax
import pytest

from jaxdl.models.mlp import MLP
from jaxdl.tasks import vision
from tests.export.models import in_memory, train


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    folder = tmp_path_factory.mktemp("iris") / "run"
    train("iris_mlp", folder, "--num_epochs=40", "--task=setosa")
    return folder


@pytest.fixture(scope="module")
def pictures():
    """An untrained classifier of grey images, and its data."""
    config = vision.ClassifierConfig(dataset="embedded", image_size=8, batch_size=2)
    data = vision.load(config)
    task = vision.classify(config, MLP(10, ()), data.spec)
    return in_memory(task, task.init(jax.random.key(0)), data.spec, config)
