"""Classification or regression on any table by an ensemble of perceptrons.

    python -m experiments.tabular_mlp                                         # breast cancer
    python -m experiments.tabular_mlp --dataset=./house.csv --target=price    # your own table

The columns are normalised, missing values have indicators, and categories are one-hot vectors. Over
10 seeds: test accuracy 0.970 ± 0.017 on breast cancer and 0.972 ± 0.019 on wine, R squared 0.496 ±
0.098 on diabetes. `experiments.benchmarks.tabular_baselines` compares it with gradient boosting.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxdl import cli
from jaxdl.config import flag
from jaxdl.data.batches import Dataset
from jaxdl.data.spec import DataSpec
from jaxdl.models.tabular import TabularMLP
from jaxdl.nn.activations import ACTIVATIONS
from jaxdl.task import Task
from jaxdl.tasks import tabular
from jaxdl.tasks.tabular import TabularConfig
from jaxdl.train import loop


@dataclasses.dataclass(frozen=True)
class Config(TabularConfig):
    """Eight small perceptrons, trained side by side on the same batches."""

    members: int = flag(
        8, "networks of the ensemble, whose predictions are averaged", low=1, high=1000
    )
    layers: int = flag(2, "hidden layers of each network; 0: linear models", low=0, high=100)
    hidden: int = flag(64, "units of each hidden layer", low=1, high=100_000)
    activation: str = flag("gelu", "activation of the hidden layers", choices=tuple(ACTIVATIONS))
    dropout: float = flag(0.2, "dropout rate of the hidden layers", low=0.0, high=0.99)
    periodic: int = flag(
        3, "features of a periodic embedding of each number; 0: none", low=0, high=1000
    )
    periodic_scale: float = flag(
        0.1,
        "standard deviation of the embedding's frequencies before training, in periods per "
        "standard deviation of the column",
        low=0.0,
        high=100.0,
    )
    num_epochs: int = 100
    batch_size: int = 32
    learning_rate: float = 1e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.3
    ema_decay: float = 0.99
    eval_every: int = 50
    checkpoint_every: int = 1000
    patience: int = 10


def load(config: Config) -> Dataset:
    """Loads the table; one of scikit-learn, or one file, is split by --seed."""
    return tabular.load(config)


def build(config: Config, spec: DataSpec) -> Task:
    """Builds the task: softmax over the classes, or a normalised number."""
    model = TabularMLP(
        spec.num_classes or 1,
        (config.hidden,) * config.layers,
        numeric=len(tabular.numeric_columns(spec)),
        members=config.members,
        features=config.periodic,
        scale=config.periodic_scale,
        activation=ACTIVATIONS[config.activation],
        dropout=config.dropout,
        dtype=jnp.dtype(config.dtype),
    )
    return tabular.predict_target(config, model, spec)


def run(config: Config) -> dict[str, Any]:
    """Trains the ensemble and returns the content of `summary.json`."""
    data = load(config)
    return loop.train(config, build, data, best=("loss", min))


if __name__ == "__main__":
    cli.main(run, Config)
