"""The small convolutional network of `mnist_cnn` on CIFAR-10, with crops and mirror images.

    python -m experiments.cifar_cnn
    python -m experiments.cifar_cnn --dataset=embedded    # scikit-learn's digits

Batch normalisation, decay and twenty epochs are all that differs. What it reaches stands in the
README's table of results.
"""

import dataclasses

from experiments import mnist_cnn
from experiments.mnist_cnn import build, load, run
from jaxdl import cli

__all__ = ["Config", "build", "load", "run"]


@dataclasses.dataclass(frozen=True)
class Config(mnist_cnn.Config):
    """Defaults for CIFAR-10."""

    dataset: str = "cifar10"
    image_size: int = 32
    norm: str = "batch"
    dropout: float = 0.1
    num_epochs: int = 20
    weight_decay: float = 0.01
    flip: bool = True


if __name__ == "__main__":
    cli.main(run, Config)
