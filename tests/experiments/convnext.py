"""ConvNeXt (Liu et al., 2022) on a folder of images, as a user writes it in one file."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl import cli
from jaxdl.config import flag
from jaxdl.data.spec import DataSpec
from jaxdl.task import Task
from jaxdl.tasks import vision
from jaxdl.tasks.vision import load
from jaxdl.train import loop


class ConvNeXt(nn.Module):
    """A patch stem, stages of depthwise 7x7 blocks, and a linear layer: [B, H, W, C] -> [B, K]."""

    outputs: int
    widths: tuple[int, ...]
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for stage, width in enumerate(self.widths):
            size = 2 if stage else 4
            x = nn.LayerNorm()(nn.Conv(width, (size, size), (size, size))(x))
            for _ in range(self.depth):
                y = nn.LayerNorm()(nn.Conv(width, (7, 7), feature_group_count=width)(x))
                y = nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(y)))
                x += y
        return nn.Dense(self.outputs)(nn.LayerNorm()(jnp.mean(x, axis=(1, 2))))


@dataclasses.dataclass(frozen=True)
class Config(vision.ClassifierConfig):
    """Three stages of two blocks."""

    width: int = flag(64, "channels of the first stage", low=1, high=1024)
    optimizer: str = "adamw"
    weight_decay: float = 0.05


def build(config: Config, spec: DataSpec) -> Task:
    widths = tuple(config.width * 2**stage for stage in range(3))
    return vision.classify(config, ConvNeXt(spec.num_outputs, widths, depth=2), spec)


def run(config: Config) -> dict[str, Any]:
    data = load(config)
    return loop.train(config, build, data, best=vision.best(data.spec))


if __name__ == "__main__":
    cli.main(run, Config)
