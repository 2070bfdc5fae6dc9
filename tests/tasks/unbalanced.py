"""An experiment whose classes are not of one size, for tests of weights and metrics of classes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.data.batches import Dataset
from jaxdl.data.describe import describe
from jaxdl.models.mlp import MLP
from jaxdl.tasks import classification
from jaxdl.tasks.classification import ClassificationConfig, with_classes
from jaxdl.tasks.supervised import accuracy_metrics
from jaxdl.train import loop


@dataclasses.dataclass(frozen=True)
class Config(ClassificationConfig):
    """Linear model of points, nine tenths of which are of one class."""

    num_steps: int = 60
    batch_size: int = 20
    learning_rate: float = 0.05
    eval_every: int = 60
    checkpoint_every: int = 30


def points():
    """Two overlapping groups of points on a line, of which one is rare."""
    random, splits = np.random.RandomState(0), []
    for count in (400, 100, 200):
        y = (np.arange(count) % 10 == 0).astype(np.int32)
        x = (random.normal(size=count) + 1.5 * y).astype(np.float32)
        splits.append({"x": x[:, None], "y": y})
    fields = {"name": "points", "version": "1", "num_classes": 2, "classes": ("common", "rare")}
    return Dataset(describe(*splits, **fields), *splits)


def load(config):
    return with_classes(config, points(), "y")


def build(config, spec):
    return classification.classification_from_config(
        config,
        MLP(2, ()),
        spec,
        loss=lambda logits, batch: -jax.nn.log_softmax(logits)[jnp.arange(len(logits)), batch["y"]],
        metrics_fn=lambda logits, batch: accuracy_metrics(logits, batch | {"label": batch["y"]}),
        label="y",
        inputs="x",
    )


def run(config):
    return loop.train(config, build, load(config))
