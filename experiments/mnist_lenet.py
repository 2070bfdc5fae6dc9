"""LeNet-5 on handwritten digits (LeCun, Bottou, Bengio & Haffner, 1998): 61,706 parameters.

    python -m experiments.mnist_lenet                                # ReLU and max pooling
    python -m experiments.mnist_lenet --activation=tanh --pool=average    # nearer to 1998
    python -m experiments.mnist_lenet --dataset=embedded             # scikit-learn's digits

What they reach stands in the README's table of results.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxdl import cli
from jaxdl.config import flag
from jaxdl.data.spec import DataSpec
from jaxdl.models.lenet import LeNet5
from jaxdl.nn.activations import ACTIVATIONS
from jaxdl.nn.pooling import POOLS
from jaxdl.task import Task
from jaxdl.tasks import vision
from jaxdl.tasks.vision import load
from jaxdl.train import loop


@dataclasses.dataclass(frozen=True)
class Config(vision.ClassifierConfig):
    """LeNet-5, trained for ten epochs."""

    dataset: str = "mnist"
    image_size: int = flag(28, "pixels a side; other images are resized", low=12, high=1024)
    activation: str = flag("relu", "of all layers but the last", choices=tuple(ACTIVATIONS))
    pool: str = flag("max", "after each convolution", choices=tuple(POOLS))
    num_epochs: int = 10
    learning_rate: float = 0.002
    crop_padding: int = 2


def build(config: Config, spec: DataSpec) -> Task:
    """The task, from constructors only."""
    model = LeNet5(
        spec.num_classes,
        activation=ACTIVATIONS[config.activation],
        pool=POOLS[config.pool],
        dtype=jnp.dtype(config.dtype),
    )
    return vision.classify(config, model, spec)


def run(config: Config) -> dict[str, Any]:
    """Trains and returns what `summary.json` holds."""
    data = load(config)
    return loop.train(config, build, data, best=("accuracy", max))


if __name__ == "__main__":
    cli.main(run, Config)
