"""A regression with two targets that are not numbers, for tests of `--on_nonfinite`.

python -m tests.nan_targets --on_nonfinite=rewind --workdir=runs/nan
"""

from typing import Any

import numpy as np

from experiments import diabetes_regression
from jaxdl import cli
from jaxdl.data.batches import Dataset
from jaxdl.train import loop

ROWS = [40, 200]  # of the training split


class Config(diabetes_regression.Config):
    """Diabetes."""


def load(config: Config) -> Dataset:
    """The patients, two of whom have lost their targets; described as they were before."""
    data = diabetes_regression.load(config)
    data.train["y"][ROWS] = np.nan
    return data


build = diabetes_regression.build


def run(config: Config) -> dict[str, Any]:
    """Trains it."""
    data = load(config)
    return loop.train(config, build, data, best=("loss", min))


if __name__ == "__main__":
    cli.main(run, Config)
