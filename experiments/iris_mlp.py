"""Two-layer perceptron with back-propagation on the iris flowers (Rumelhart et al., 1986).

    python -m experiments.iris_mlp                   # setosa or not, from the petal; 4 tanh units
    python -m experiments.iris_mlp --task=species    # three species, from all four measurements

The first network is h = tanh(W x + b), z = v h + c, p = sigmoid(z). By hand, the gradient of its
cross-entropy is p - y for z, (p - y) h for v and (p - y) v (1 - h**2) x for W; a test compares this
with `jax.grad`. Test accuracy over 10 seeds: 1.0 for the first command, 0.967 for the second.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import augment, cli, losses, metrics
from jaxdl.config import flag
from jaxdl.data import tables
from jaxdl.data.batches import Dataset, Split
from jaxdl.data.spec import DataSpec
from jaxdl.models.mlp import MLP
from jaxdl.nn.activations import ACTIVATIONS
from jaxdl.run import plots
from jaxdl.task import Batch, Task
from jaxdl.tasks.classification import (
    ClassificationConfig,
    classification_from_config,
    with_classes,
)
from jaxdl.tasks.supervised import TrainState, accuracy_metrics
from jaxdl.train import loop

PETAL = (2, 3)  # columns of the petal's length and width


@dataclasses.dataclass(frozen=True)
class Config(ClassificationConfig):
    """One hidden layer of tanh units and full-batch gradient descent."""

    dataset: str = flag("embedded", "scikit-learn's iris data", choices=("embedded", "iris"))
    task: str = flag(
        "setosa",
        "setosa: setosa or not, by petal length and width; species: all three, by four columns",
        choices=("setosa", "species"),
    )
    hidden: int = flag(4, "units of the hidden layer", low=1, high=100_000)
    activation: str = flag("tanh", "activation of the hidden layer", choices=tuple(ACTIVATIONS))
    validation_fraction: float = flag(0.1333, "fraction of all flowers", low=0.0, high=1.0)
    test_fraction: float = flag(0.2, "fraction of all flowers", low=0.0, high=1.0)
    num_epochs: int = 1000  # one step each
    batch_size: int = 100
    learning_rate: float = 0.1
    optimizer: str = "momentum"
    l2: float = 1e-3
    eval_every: int = 100
    checkpoint_every: int = 500


def load(config: Config) -> Dataset:
    """Loads the flowers, split by --seed; with --task=setosa, y is 1 for setosa and 0 otherwise."""
    data = tables.iris(
        config.seed,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
    )
    if config.task == "species":
        return with_classes(config, data, "y")

    def petals(split: Split) -> Split:
        return {"x": split["x"][:, PETAL], "y": (split["y"] == 0).astype(np.int32)}

    setosa = tables.dataset(
        [petals(split) for split in (data.train, data.validation, data.test)],
        name=data.spec.name,
        version=data.spec.version,
        fingerprint=data.spec.fingerprint,
        source=data.spec.source,
        columns=tuple(data.spec.columns[column] for column in PETAL),
        classes=("not setosa", "setosa"),
        num_classes=2,
    )
    return with_classes(config, setosa, "y")


def build(config: Config, spec: DataSpec) -> Task:
    """Builds the task: one sigmoid logit for two classes, three softmax logits for three."""
    mean, std = spec.statistics()
    model = MLP(
        1 if spec.num_classes == 2 else spec.num_classes,
        (config.hidden,),
        ACTIVATIONS[config.activation],
        dtype=jnp.dtype(config.dtype),
    )

    def loss(logits: jax.Array, batch: Batch) -> jax.Array:
        if logits.shape[-1] == 1:
            return losses.binary_cross_entropy(logits[:, 0], batch["y"])
        return losses.cross_entropy(logits, batch["y"])

    def metrics_fn(logits: jax.Array, batch: Batch) -> metrics.Metrics:
        if logits.shape[-1] == 1:  # a sigmoid of z is a softmax over (0, z)
            logits = jnp.pad(logits, ((0, 0), (1, 0)))
        return accuracy_metrics(logits, batch | {"label": batch["y"]})

    return classification_from_config(
        config,
        model,
        spec,
        loss=loss,
        metrics_fn=metrics_fn,
        kind="logits",
        label="y",
        preprocess=lambda batch: batch | {"x": augment.normalize(batch["x"], mean, std)},
        inputs="x",
    )


def run(config: Config) -> dict[str, Any]:
    """Trains, plots the decision boundary of setosa and returns the content of `summary.json`."""
    data = load(config)

    def final_eval(task: Task, state: TrainState, folder: Path) -> dict[str, float]:
        def probability(x: np.ndarray) -> np.ndarray:
            logits = task.predict(state, {"x": jnp.asarray(x)})
            return np.asarray(jax.nn.sigmoid(logits[:, 0]))

        if config.task == "setosa":
            path = folder / "plots" / "boundary.png"
            plots.boundary(probability, data.test, data.spec.columns, data.spec.classes, path)
        return {}

    return loop.train(config, build, data, best=("loss", min), final_eval=final_eval)


if __name__ == "__main__":
    cli.main(run, Config)
