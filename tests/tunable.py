"""Experiment with the flags of supervised learning that runs in a second, for tests.

python -m tests.tunable --workdir=runs/tunable
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from jaxdl import augment, cli, losses
from jaxdl.config import flag
from jaxdl.nn import norm
from jaxdl.nn.dropout import Dropout
from jaxdl.tasks.supervised import accuracy_metrics
from jaxdl.tasks.supervised_config import SupervisedConfig, supervised_from_config
from jaxdl.train import loop
from tests import small


@dataclasses.dataclass(frozen=True)
class Config(SupervisedConfig):
    """Config of a network with running statistics and dropout."""

    width: int = flag(6, "number of hidden units", low=1)
    head: str = flag("head", "name of the last layer")
    num_steps: int = flag(6, "number of updates; 0: from --num_epochs", low=0)
    batch_size: int = flag(16, "number of examples in an update", low=1)
    learning_rate: float = 0.05
    weight_decay: float = 0.1
    eval_every: int = 3
    checkpoint_every: int = 2


class Net(nn.Module):
    """Dense layers, the first with batch normalisation and dropout."""

    width: int
    head: str

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(self.width, name="body")(x.reshape(x.shape[0], -1))
        x = nn.relu(norm.batch(x, train, jnp.float32))
        x = Dropout(0.1, deterministic=not train)(x)
        return nn.Dense(10, name=self.head)(x)


load = small.load


def build(config, spec):
    """Returns the task."""
    mean, std = spec.statistics()
    return supervised_from_config(
        config,
        Net(config.width, config.head),
        spec,
        loss=lambda logits, batch: losses.cross_entropy(logits, batch["label"]),
        metrics_fn=accuracy_metrics,
        preprocess=lambda batch: batch | {"image": augment.normalize(batch["image"], mean, std)},
    )


def run(config):
    """Trains; returns the summary."""
    return loop.train(config, build, load(config))


if __name__ == "__main__":
    cli.main(run, Config)
