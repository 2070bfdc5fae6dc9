"""The paper's VGG-16 (Simonyan & Zisserman, 2015): 224x224 pixels, 4096-4096-K at the end.

    python -m experiments.imagenet_vgg --dataset=imagenette/320px-v2
    python -m experiments.imagenet_vgg --dataset=./FOLDER    # FOLDER/train/CLASS/*.jpg and test/
    python -m experiments.imagenet_vgg --stream --crop_area=0.08 --workers=32

Any image-classification data set that TFDS prepared in --data_dir, by name, or any folder of
images. All of it is held in memory (150 KB an image; ImageNet wants 200 GB), or with --stream read
and decoded while training. Not measured.
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
    """Configuration D and the training of the paper's section 3.1, with a cosine rate."""

    dataset: str = "imagenet2012"
    image_size: int = flag(224, "pixels a side; other images are resized", low=32, high=1024)
    num_epochs: int = 74
    batch_size: int = 256
    learning_rate: float = 0.01
    depth: str = flag("16", "layers with weights", choices=tuple(map(str, CONVOLUTIONS)))
    width_multiplier: float = flag(
        1.0, "scales all widths but the last", low=0.01, high=8.0, static=True
    )
    norm: str = "none"
    dropout: float = flag(0.5, "rate after each hidden layer", low=0.0, high=0.99)
    optimizer: str = "momentum"
    warmup_epochs: float = 1.0
    l2: float = 5e-4
    crop_padding: int = 16
    flip: bool = True
    remat: bool = flag(False, "compute layers again in the backward pass: less memory, more time")


def build(config: Config, spec: DataSpec) -> Task:
    """The task, from constructors only."""
    model = VGG(
        spec.num_classes,
        depth=int(config.depth),
        norm=vision.norm(config),
        hidden=(4096, 4096),
        dropout=config.dropout,
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
