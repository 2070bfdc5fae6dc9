"""Experiment that runs in a second, for tests. It has every kind of state that a resume could lose.

python -m tests.small --workdir=runs/small
"""

import dataclasses
import functools

import flax.linen as nn

from jaxdl import augment, cli, losses, optim, schedules
from jaxdl.config import RunConfig, flag
from jaxdl.data import batches, image_sources, images
from jaxdl.data.describe import describe
from jaxdl.nn.dropout import Dropout
from jaxdl.task import Task
from jaxdl.tasks.supervised import accuracy_metrics, supervised
from jaxdl.train import loop


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Config of a task with running statistics, dropout, momentum and a schedule with warm-up."""

    dropout: float = flag(0.2, "dropout rate", low=0.0, high=1.0)
    width: int = flag(16, "number of hidden units", low=1)
    num_epochs: int = flag(2, "number of passes over the training split", low=1)
    batch_size: int = flag(16, "number of examples in an update", low=1)
    learning_rate: float = 0.1


# Description of a data set, for tests that need no arrays.
DESCRIBED = describe({}, name="made", version="1", fingerprint="f" * 64, num_train=7)


class Net(nn.Module):
    """Dense layers with batch normalisation and dropout."""

    dropout: float
    width: int

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(self.width)(x.reshape(x.shape[0], -1))
        x = nn.relu(nn.BatchNorm(not train)(x))
        x = Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(10)(x)


def load(config):
    """Returns synthetic images of 8 by 8 pixels, in splits of 99, 11 and 27."""
    raw = image_sources.synthetic(8, examples=110)
    train, validation = batches.split_validation(raw.train, 0.1)
    return images.dataset("synthetic", raw._replace(train=train, validation=validation))


def build(config, spec) -> Task:
    """Returns the task."""
    mean, std = spec.statistics()

    def preprocess(batch):
        return batch | {"image": augment.normalize(batch["image"], mean, std)}

    def distort(key, batch):
        return batch | {"image": augment.random_crop(key, batch["image"], 1)}

    total = config.total_steps(spec.num_train)
    return supervised(
        Net(config.dropout, config.width),
        optim.optimizer(
            "nesterov",
            config.learning_rate,
            schedules.schedule("cosine", total, min(2, total // 2)),
            weight_decay=1e-3,
        ),
        loss=lambda logits, batch: losses.cross_entropy(logits, batch["label"], 0.1),
        metrics_fn=accuracy_metrics,
        example=spec.example(),
        preprocess=preprocess,
        augment=distort,
    )


def plain(config):
    """Returns a config without the fields that a compiled program does not depend on."""
    events = {"log_every": 1, "eval_every": 0, "checkpoint_every": 0}
    return dataclasses.replace(config, workdir="", resume="auto", **events)


@functools.cache
def data_of(config):
    """Returns the data of a config, the same object each time."""
    return load(config)


def run(config):
    """Trains; returns the summary."""
    return loop.train(config, build, data_of(plain(config)))


if __name__ == "__main__":
    cli.main(run, Config)
