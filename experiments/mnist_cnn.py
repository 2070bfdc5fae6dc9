"""A small convolutional network on handwritten digits.

    python -m experiments.mnist_cnn
    python -m experiments.mnist_cnn --dataset=embedded    # scikit-learn's digits

3x3 convolutions of 16 and 32 channels, each with 2x2 pooling, then a dense layer of 128 units. Test
accuracy: 0.993 on MNIST after 1.4 minutes on two CPU cores, 0.981 on the digits.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxdl import cli
from jaxdl.config import flag
from jaxdl.data.spec import DataSpec
from jaxdl.models.cnn import CNN
from jaxdl.nn.activations import ACTIVATIONS
from jaxdl.nn.pooling import POOLS
from jaxdl.task import Task
from jaxdl.tasks import vision
from jaxdl.tasks.vision import load
from jaxdl.train import loop


@dataclasses.dataclass(frozen=True)
class Config(vision.NormalizedConfig):
    """Two 3x3 convolutions with pooling, and a dense layer."""

    dataset: str = "mnist"
    image_size: int = flag(28, "pixels per side; other images are resized", low=4, high=1024)
    activation: str = flag(
        "relu", "activation of all layers but the last", choices=tuple(ACTIVATIONS)
    )
    pool: str = flag("max", "pooling after each convolution", choices=tuple(POOLS))
    norm: str = "none"
    dropout: float = flag(0.3, "dropout rate before the last layer", low=0.0, high=0.99)
    num_epochs: int = 10
    learning_rate: float = 0.002
    crop_padding: int = 2


def build(config: Config, spec: DataSpec) -> Task:
    """Builds the task."""
    model = CNN(
        spec.num_outputs,
        activation=ACTIVATIONS[config.activation],
        pool=POOLS[config.pool],
        norm=vision.norm(config),
        dropout=config.dropout,
        dtype=jnp.dtype(config.dtype),
    )
    return vision.classify(config, model, spec)


def run(config: Config) -> dict[str, Any]:
    """Trains the model and returns the content of `summary.json`."""
    data = load(config)
    return loop.train(config, build, data, best=vision.best(data.spec))


if __name__ == "__main__":
    cli.main(run, Config)
