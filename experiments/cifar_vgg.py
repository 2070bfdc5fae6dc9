"""VGG on CIFAR-10 (Simonyan & Zisserman, 2015), with batch normalisation and a linear head.

    python -m experiments.cifar_vgg --learning_rate=0.1
    python -m experiments.cifar_vgg --width_multiplier=0.25 --num_epochs=5
    python -m experiments.cifar_vgg --dataset=embedded --width_multiplier=0.25 --batch_size=64
        --num_epochs=15    # scikit-learn's digits

Test accuracy on two CPU cores: 0.776 for the second command (CIFAR-10 re-compressed as JPEG,
9 minutes) and 0.997 to 1.0, by machine, for the third (a minute). Full width has not been measured.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxdl import cli
from jaxdl.config import flag
from jaxdl.data.spec import DataSpec
from jaxdl.models.vgg import CONVOLUTIONS, VGG
from jaxdl.task import Task
from jaxdl.tasks import vision
from jaxdl.tasks.vision import load
from jaxdl.train import loop


@dataclasses.dataclass(frozen=True)
class Config(vision.NormalizedConfig):
    """VGG-16 with batch normalisation and a common recipe for CIFAR-10."""

    dataset: str = "cifar10"
    image_size: int = flag(32, "pixels per side; other images are resized", low=32, high=1024)
    num_epochs: int = 30
    depth: str = flag("16", "number of layers with weights", choices=tuple(map(str, CONVOLUTIONS)))
    width_multiplier: float = flag(
        1.0, "factor of the number of channels", low=0.01, high=8.0, static=True
    )
    dropout: float = flag(0.3, "dropout rate before the last layer", low=0.0, high=0.99)
    optimizer: str = "nesterov"
    learning_rate: float = 0.1
    warmup_epochs: float = 1.0
    weight_decay: float = 5e-3
    label_smoothing: float = 0.1
    crop_padding: int = 4
    flip: bool = True
    remat: bool = flag(False, "rematerialise layers in the backward pass: less memory, more time")


def build(config: Config, spec: DataSpec) -> Task:
    """Builds the task."""
    model = VGG(
        spec.num_outputs,
        depth=int(config.depth),
        norm=vision.norm(config),
        dropout=config.dropout,
        width_multiplier=config.width_multiplier,
        dtype=jnp.dtype(config.dtype),
        remat=config.remat,
    )
    return vision.classify(config, model, spec)


def run(config: Config) -> dict[str, Any]:
    """Trains the model and returns the content of `summary.json`."""
    data = load(config)
    return loop.train(config, build, data, best=vision.best(data.spec))


if __name__ == "__main__":
    cli.main(run, Config)
