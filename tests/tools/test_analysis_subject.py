"""Layers of the model that `jaxdl analyze` measures."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.task import Predict
from jaxdl.tools.model_layers import ModelLayers


class Turned(nn.Module):
    """Output [F, B] of x [B, F]."""

    @nn.compact
    def __call__(self, x):
        return x.T


class WithTurned(nn.Module):
    """A network with a layer whose first axis is not that of the examples."""

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(3)(x)
        return nn.Dense(2)(y) + jnp.sum(Turned()(y))


def test_a_layer_of_three_features_is_not_one_of_three_examples():
    network = WithTurned()
    state = network.init(jax.random.key(0), jnp.ones((1, 4)))
    task = SimpleNamespace(predict=Predict(lambda batch: batch["x"], network.apply))
    inputs = {"x": jax.ShapeDtypeStruct((1, 4), jnp.float32)}
    model = SimpleNamespace(task=task, state=state, inputs=inputs, batch_size=2)
    batch = {"x": np.ones((3, 4), np.float32), "index": np.arange(3)}
    for size in (2, 4):  # in two parts, and in one
        model.batch_size = size
        found = ModelLayers(model)
        outputs = found.features(batch, list(found.shapes))
        assert {name: x.shape for name, x in outputs.items()} == {
            "Dense_0": (3, 1, 3),
            "Dense_1": (3, 1, 2),
        }
        name, x = found.hidden(batch)
        assert name == "input of Dense_1"
        np.testing.assert_array_equal(x, outputs["Dense_0"][:, 0])
