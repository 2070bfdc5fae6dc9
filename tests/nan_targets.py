"""Regression with two targets that are NaN, for tests of `--on_nonfinite`.

python -m tests.nan_targets --on_nonfinite=rewind --workdir=runs/nan
"""

from typing import Any

import numpy as np

from experiments import diabetes_regression
from jaxdl import cli
from jaxdl.data.batches import Dataset
from jaxdl.train import loop

ROWS = [40, 200]  # rows of the training split whose targets are NaN


class Config(diabetes_regression.Config):
    """Config of `diabetes_regression`."""


def load(config: Config) -> Dataset:
    """Returns the data with two targets replaced by NaN, and the description of the original."""
    data = diabetes_regression.load(config)
    data.train["y"][ROWS] = np.nan
    return data


build = diabetes_regression.build


def run(config: Config) -> dict[str, Any]:
    """Trains; returns the summary."""
    data = load(config)
    return loop.train(config, build, data, best=("loss", min))


if __name__ == "__main__":
    cli.main(run, Config)
