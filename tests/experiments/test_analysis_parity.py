"""The comparison with PyTorch's libraries, with results from here in the place of their side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import analysis_parity as parity
from jaxdl.errors import TrainingError, UserError
from jaxdl.export import torch_weights
from jaxdl.flags import parse_flags
from jaxdl.models.cnn import CNN
from jaxdl.nn.pooling import POOLS


@pytest.fixture
def config(monkeypatch):
    """PyTorch's side: the results of the weights that it is given, converted back."""

    def theirs(python, given):
        assert python == "PYTHON"
        x = jnp.asarray(np.moveaxis(given["x"], 1, -1))
        model = CNN(parity.CLASSES, channels=(4, 6), hidden=16, pool=POOLS["average"])
        like = model.init(jax.random.key(0), x, train=False)
        tensors = {name: value for name, value in given.items() if "." in name}
        variables = torch_weights.unflatten(torch_weights.from_torch(tensors, like))
        found = parity.ours(model, variables, x, jnp.asarray(given["labels"]))
        return found | {"ece": found["ece"] + theirs.error}

    theirs.error = 0.0
    monkeypatch.setattr(parity, "theirs", theirs)
    monkeypatch.setattr(parity, "ITERATIONS", 8)
    return theirs


def test_equal_results_have_no_difference(config):
    found = parity.run(parse_flags(parity.Config, ["--torch_python=PYTHON"]))
    assert set(found) == set(parity.TOLERANCES)
    assert max(found.values()) == 0


def test_a_difference_above_its_tolerance_is_an_error(config):
    config.error = 1e-3
    with pytest.raises(TrainingError, match="above the tolerance of ece"):
        parity.run(parse_flags(parity.Config, ["--torch_python=PYTHON"]))


def test_the_other_side_is_named():
    with pytest.raises(UserError, match="foolbox, netcal and hessian-eigenthings"):
        parity.run(parity.Config())
