"""Transfer between digits: LeNet-5 trained on 0 to 4, then on few examples of each of 5 to 9.

    python -m experiments.benchmarks.fine_tuning --data_dir=data
    python -m experiments.benchmarks.fine_tuning --data_dir=data --seeds=1 --source_steps=50

For each seed, a network is trained on MNIST's digits 0 to 4. Other networks are then trained on the
same 100, and the same 10, examples of each digit from 5 to 9, for the same number of steps:

- `head`: all trained layers are frozen, under a new head. It has ten times the learning rate of the
  others, at whose rate a linear layer is far from its end after these steps.
- `convolutions`: the trained convolutions are frozen, under new dense layers.
- `fine_tuned`: starts from the trained layers, under a new head, and trains all of them.
- `from_nothing`: starts from random weights.

Prints the mean and standard deviation of their test accuracy over the seeds, on all test images of
5 to 9. Fails if a bit of a frozen layer has changed.
"""

import dataclasses
import hashlib
import itertools
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments import mnist_lenet
from jaxdl import cli, files
from jaxdl.config import flag
from jaxdl.data import batches
from jaxdl.data.batches import Dataset
from jaxdl.errors import TrainingError
from jaxdl.export import weights
from jaxdl.tasks.vision import load
from jaxdl.train import loop

HEAD = "Dense_2"
ARMS: dict[str, dict[str, Any]] = {
    "head": {"init_skip": HEAD, "freeze": "ConvPool|Dense_0|Dense_1", "learning_rate": 0.02},
    "convolutions": {"init_skip": "Dense", "freeze": "ConvPool"},
    "fine_tuned": {"init_skip": HEAD},
    "from_nothing": {},
}


@dataclasses.dataclass(frozen=True)
class Config(mnist_lenet.Config):
    """LeNet-5 on half of the digits."""

    digits: str = flag("5-9", "digits to tell apart", choices=("0-4", "5-9"))
    per_class: int = flag(100, "training examples of each digit; 0: all", low=0)
    counts: str = flag("100,10", "comma-separated values of --per_class that are compared")
    seeds: int = flag(5, "number of seeds", low=1)
    source_steps: int = flag(600, "updates of the network that the others start from", low=1)
    num_steps: int = flag(300, "updates of each other network", low=1)
    batch_size: int = 50
    checkpoint_every: int = flag(300, "steps between two checkpoints; 0: one epoch", low=0)
    eval_every: int = flag(300, "steps between two evaluations; 0: one epoch", low=0)


def subset(config: Config, data: Dataset) -> Dataset:
    """Returns the examples of a config's digits, with labels from 0 to 4.

    Args:
      config: a config; its seed draws the training examples.
      data: all of MNIST.
    """
    first = 0 if config.digits == "0-4" else 5
    splits = []
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        label = np.asarray(split["label"])
        rows = np.flatnonzero((first <= label) & (label < first + 5))
        if name == "train" and config.per_class:
            order = np.random.RandomState(config.seed).permutation(rows)
            each = [order[label[order] == first + k][: config.per_class] for k in range(5)]
            rows = np.sort(np.concatenate(each))
        chosen = batches.select(split, rows)
        splits.append(chosen | {"label": (np.asarray(chosen["label"]) - first).astype(label.dtype)})
    choice = f"{data.spec.fingerprint} {config.digits} {config.per_class} {config.seed}"
    spec = dataclasses.replace(
        data.spec,
        fingerprint=hashlib.sha256(choice.encode()).hexdigest(),
        num_train=batches.size(splits[0]),
        num_classes=5,
        classes=data.spec.classes[first : first + 5],
    )
    return Dataset(spec, *splits)


def train(config: Config, data: Dataset) -> dict[str, Any]:
    """Trains a network on a config's digits."""
    return loop.train(config, mnist_lenet.build, subset(config, data), best=("accuracy", max))


def check_frozen(source: Path, run: Path) -> None:
    """Checks that the frozen layers of a run have the bits of the network that they come from.

    Raises:
      TrainingError: a bit differs.
    """
    config = files.read_json(run / "config.json")
    (before, _), (after, _) = weights.of_run(source), weights.of_run(run)
    for path, array in before.items():
        is_frozen = config["freeze"] and re.search(config["freeze"], path)
        if is_frozen and array.tobytes() != after[path].tobytes():
            raise TrainingError(f"{path} has changed, although it is frozen: see {run}")


def run(config: Config) -> dict[str, float]:
    """Trains all networks; returns the mean and deviation of each arm's accuracy."""
    data = load(config)
    accuracies: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as parent:
        for seed in range(config.seeds):
            folder = Path(parent) / str(seed)
            common = dataclasses.replace(config, seed=seed, dry_run=False)
            steps = config.source_steps
            events: Any = {"num_steps": steps, "checkpoint_every": steps, "eval_every": steps}
            source: Any = dataclasses.replace(
                common, digits="0-4", per_class=0, workdir=str(folder / "source"), **events
            )
            train(source, data)
            for count, arm in itertools.product(config.counts.split(","), ARMS):
                path = "" if arm == "from_nothing" else source.workdir
                workdir = folder / arm / count
                flags: Any = {"init_from": path, "workdir": str(workdir), **ARMS[arm]}
                flags["per_class"] = int(count)
                summary = train(dataclasses.replace(common, **flags), data)
                check_frozen(folder / "source", workdir)
                accuracies.setdefault(f"{count}/{arm}", []).append(summary["test/accuracy"])
    results: dict[str, float] = {}
    for arm, values in accuracies.items():
        results[f"{arm}/mean"] = statistics.mean(values)
        results[f"{arm}/deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return results


if __name__ == "__main__":
    cli.main(run, Config)
