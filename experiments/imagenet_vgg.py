"""VGG-16 on ImageNet as in the paper (Simonyan & Zisserman, 2015): 224x224 pixels.

    python -m experiments.imagenet_vgg --dataset=imagenette/320px-v2
    python -m experiments.imagenet_vgg --dataset=./FOLDER    # FOLDER/train/CLASS/*.jpg and test/
    python -m experiments.imagenet_vgg --stream --crop_area=0.08 --workers=32

The head is 4096-4096-K. The data set is any image classification data set that TFDS prepared in
--data_dir, or a folder of images. It is held in memory (150 KB per image, 200 GB for ImageNet), or
with --stream read and decoded while training. Accuracy has not been measured.
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
    """Configuration D with the training of the paper's section 3.1 and a cosine schedule."""

    dataset: str = "imagenet2012"
    image_size: int = flag(224, "pixels per side; other images are resized", low=32, high=1024)
    num_epochs: int = 74
    batch_size: int = 256
    learning_rate: float = 0.01
    depth: str = flag("16", "number of layers with weights", choices=tuple(map(str, CONVOLUTIONS)))
    width_multiplier: float = flag(
        1.0, "factor of all widths but the last", low=0.01, high=8.0, static=True
    )
    norm: str = "none"
    dropout: float = flag(0.5, "dropout rate after each hidden layer", low=0.0, high=0.99)
    pooled: int = flag(
        0, "side of the average pooling before the hidden layers; 0: none", low=0, high=64
    )
    optimizer: str = "momentum"
    warmup_epochs: float = 1.0
    l2: float = 5e-4
    crop_padding: int = 16
    flip: bool = True
    remat: bool = flag(False, "rematerialise layers in the backward pass: less memory, more time")


def build(config: Config, spec: DataSpec) -> Task:
    """Builds the task."""
    model = VGG(
        spec.num_outputs,
        depth=int(config.depth),
        norm=vision.norm(config),
        hidden=(4096, 4096),
        pooled=config.pooled,
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
