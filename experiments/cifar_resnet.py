"""ResNet on CIFAR-10 (He et al., 2016), with the stem for small images or that for ImageNet.

    python -m experiments.cifar_resnet                      # ResNet-18
    python -m experiments.cifar_resnet --pre_activation     # of the second paper
    python -m experiments.cifar_resnet --depth=50 --stem=imagenet --image_size=224
    python -m experiments.cifar_resnet --dataset=embedded --width_multiplier=0.25 --batch_size=64
        --num_epochs=10

Full width has not been measured; what the last reaches stands in the README's table of results.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxdl import cli
from jaxdl.config import flag
from jaxdl.data.spec import DataSpec
from jaxdl.models.resnet import BLOCKS, STEMS, ResNet
from jaxdl.task import Task
from jaxdl.tasks import vision
from jaxdl.tasks.vision import load
from jaxdl.train import loop


@dataclasses.dataclass(frozen=True)
class Config(vision.NormalizedConfig):
    """ResNet-18, as it is usually trained on CIFAR-10."""

    dataset: str = "cifar10"
    num_epochs: int = 30
    depth: str = flag("18", "layers with weights", choices=tuple(map(str, BLOCKS)))
    stem: str = flag("cifar", "cifar: 3x3; imagenet: 7x7 of stride 2 and pooling", choices=STEMS)
    pre_activation: bool = flag(False, "normalise and rectify before each convolution")
    stochastic_depth: float = flag(0.0, "rate of the last block", low=0.0, high=0.99)
    width_multiplier: float = flag(
        1.0, "scales the number of channels", low=0.01, high=8.0, static=True
    )
    optimizer: str = "nesterov"
    learning_rate: float = 0.1
    warmup_epochs: float = 1.0
    weight_decay: float = 5e-3
    label_smoothing: float = 0.1
    crop_padding: int = 4
    flip: bool = True
    remat: bool = flag(False, "compute layers again in the backward pass: less memory, more time")


def build(config: Config, spec: DataSpec) -> Task:
    """The task, from constructors only."""
    model = ResNet(
        spec.num_classes,
        depth=int(config.depth),
        stem=config.stem,
        pre_activation=config.pre_activation,
        norm=vision.norm(config),
        stochastic_depth=config.stochastic_depth,
        width_multiplier=config.width_multiplier,
        dtype=jnp.dtype(config.dtype),
        remat=config.remat,
    )
    return vision.classify(config, model, spec)


def run(config: Config) -> dict[str, Any]:
    """Trains and returns what `summary.json` holds."""
    data = load(config)
    return loop.train(config, build, data, best=("accuracy", max))


if __name__ == "__main__":
    cli.main(run, Config)
