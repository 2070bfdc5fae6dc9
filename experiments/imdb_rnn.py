"""Sentiment classification of film reviews (IMDb) with a bidirectional recurrent network.

    python -m experiments.imdb_rnn                                 # a bidirectional LSTM
    python -m experiments.imdb_rnn --cell=gru --nobidirectional --pool=last
    python -m experiments.imdb_rnn --dataset=embedded              # Python's own source instead

Test accuracy 0.886 after 4 minutes on two CPU cores. Keras's example with two layers reaches 0.8778
(keras.io, "Bidirectional LSTM on IMDB").
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl import cli, losses
from jaxdl.config import flag
from jaxdl.data.batches import Dataset
from jaxdl.data.spec import DataSpec
from jaxdl.models.rnn_classifier import POOLS, SequenceClassifier
from jaxdl.nn.cells import CELLS
from jaxdl.task import Batch, Task
from jaxdl.tasks import supervised
from jaxdl.tasks.classification import (
    ClassificationConfig,
    classification_from_config,
    with_classes,
)
from jaxdl.tasks.supervised import accuracy_metrics
from jaxdl.text import bucketing, reviews
from jaxdl.train import loop


@dataclasses.dataclass(frozen=True)
class Config(ClassificationConfig):
    """Bidirectional LSTM over word embeddings."""

    dataset: str = flag(
        "imdb_reviews",
        "IMDb reviews; embedded: Python's source",
        choices=("imdb_reviews", "embedded"),
    )
    validation_fraction: float = flag(0.1, "fraction of the training reviews", low=0.0, high=1.0)
    vocabulary: int = flag(20_000, "number of most frequent words", low=5, high=1e7)
    length: int = flag(400, "words read of a review, the last ones", low=1, high=65536)
    widths: int = flag(5, "number of padded widths; each is compiled", low=1, high=64)
    cell: str = flag("lstm", "cell of the recurrent layers", choices=tuple(CELLS))
    bidirectional: bool = flag(True, "read in both directions")
    pool: str = flag("max", "pooling over positions", choices=POOLS)
    layers: int = flag(1, "recurrent layers", low=1, high=100)
    embedding: int = flag(128, "features of a word embedding", low=1, high=65536)
    features: int = flag(64, "features per direction", low=1, high=65536)
    dropout: float = flag(
        0.5, "dropout rate of embeddings, between layers and before the last", low=0.0, high=0.99
    )
    num_epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-3
    clip_norm: float = 1.0


def load(config: Config) -> Dataset:
    """Loads the reviews of --dataset."""
    names = ("vocabulary", "length", "validation_fraction", "widths")
    options = {name: getattr(config, name) for name in names}
    if config.dataset == "embedded":
        return with_classes(config, reviews.embedded(**options))
    return with_classes(config, reviews.imdb(config.data_dir, **options))


def build(config: Config, spec: DataSpec) -> Task:
    """Builds the task, whose step is compiled once for each padded width."""
    model = SequenceClassifier(
        num_classes=spec.num_classes,
        vocabulary=spec.vocabulary,
        embedding=config.embedding,
        cell=config.cell,
        features=config.features,
        layers=config.layers,
        bidirectional=config.bidirectional,
        pool=config.pool,
        dropout=config.dropout,
        dtype=jnp.dtype(config.dtype),
    )

    def loss(logits: jax.Array, batch: Batch) -> jax.Array:
        return losses.cross_entropy(logits, batch["label"])

    task = classification_from_config(
        config,
        model,
        spec,
        loss=loss,
        metrics_fn=supervised.accuracy_and_confusion,
        train_metrics_fn=accuracy_metrics,
        kind="logits",
        inputs="tokens",
    )
    return bucketing.bucket(task, spec.widths, ("tokens",))


def run(config: Config) -> dict[str, Any]:
    """Trains the model and returns the content of `summary.json`."""
    data = load(config)
    return loop.train(config, build, data, best=("accuracy", max))


if __name__ == "__main__":
    cli.main(run, Config)
