"""A regression with two targets that are not numbers, for tests of `--on_nonfinite`.

python -m tests.nan_targets --on_nonfinite=rewind --workdir=runs/nan
"""

from typing import Any

import numpy as np

from experiments import diabetes_regression
from jaxdl import cli, loop
from jaxdl.data import tables
from jaxdl.task import Task

ROWS = [40, 200]  # of the training split


class Config(diabetes_regression.Config):
    """Diabetes."""


def load(config: Config) -> tables.Table:
    """The patients, two of whom have lost their targets."""
    data = diabetes_regression.load(config)
    data.train["y"][ROWS] = np.nan
    return data


def build(config: Config, data: tables.Table) -> Task:
    """The task, scaled by the targets of all patients."""
    del data
    return diabetes_regression.build(config, diabetes_regression.load(config))


def run(config: Config) -> dict[str, Any]:
    """Trains it."""
    data = load(config)
    return loop.train(config, build(config, data), data, best=("loss", min))


if __name__ == "__main__":
    cli.main(run, Config)
