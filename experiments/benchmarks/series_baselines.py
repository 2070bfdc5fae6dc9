"""Runs of `forecast_rnn` beside persistence and linear autoregression, as a Markdown table.

    python -m experiments.benchmarks.series_baselines --runs=runs/a,runs/b

The baselines get the windows of each run's splits: the same inputs and the same targets. The
autoregression is fitted to the training part by least squares, with all columns as inputs. For each
measure its order is the one of 1 to T that is best on the validation split. Errors are those of the
test split, in standard deviations of the training part. Runs that differ only in their seed are one
row: the mean and the standard deviation of their last states.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks import publish
from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.data.batches import Dataset, Split
from jaxdl.errors import UserError
from jaxdl.run import logger, run_folder

HEADER = """| series | forecast | one step | step {} |
| --- | --- | --- | --- |"""
# NRMSE at step 84 of the Mackey-Glass series with delay 17.
PUBLISHED = {
    "echo state network, 400 units, 3,000 points (Jaeger, 2001, GMD Report 148)": 0.00028,
    "echo state network, 400 units, 21,000 points (Jaeger, 2001, GMD Report 148)": 0.00012,
    "local models with a self-organizing map, best of a survey (quoted there)": 0.0088,
}


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Runs to compare with baselines."""

    runs: str = flag("", "comma-separated run folders of forecast_rnn with --target=forecast")


class Errors(NamedTuple):
    """Normalised root mean square errors.

    Attributes:
      first: error of the first step.
      last: error of the last step.
    """

    first: float
    last: float


def errors(forecast: np.ndarray, truth: np.ndarray) -> Errors:
    """Errors of normalised forecasts [M, H, C]."""
    by_step = np.sqrt(np.mean((forecast - truth) ** 2, axis=(0, 2)))
    return Errors(float(by_step[0]), float(by_step[-1]))


def fit(values: np.ndarray, order: int) -> np.ndarray:
    """Fits a linear autoregression by least squares.

    Args:
      values: a series [N, C].
      order: number of values p before the predicted one.

    Returns:
      Coefficients [p * C + 1, C] of the values before, the oldest first, and of 1.
    """
    count = len(values) - order
    lagged = [values[n : n + count] for n in range(order)]
    inputs = np.concatenate([*lagged, np.ones((count, 1))], axis=1)
    return np.linalg.lstsq(inputs, values[order:], rcond=None)[0]


def free_run(coefficients: np.ndarray, x: np.ndarray, horizon: int) -> np.ndarray:
    """Feeds forecasts of a linear autoregression back: windows [M, T, C] -> [M, H, C]."""
    M, _, C = x.shape
    order = (len(coefficients) - 1) // C
    window = x[:, x.shape[1] - order :].reshape(M, -1)
    forecast = []
    for _ in range(horizon):
        value = window @ coefficients[:-1] + coefficients[-1]
        forecast.append(value)
        window = np.concatenate([window[:, C:], value], axis=1)
    return np.stack(forecast, axis=1)


def baselines(data: Dataset) -> dict[str, Errors]:
    """Errors of persistence and of linear autoregression on the test split of a data set.

    Raises:
      UserError: a value is missing.
    """
    mean, std = (constant.astype(np.float64) for constant in data.spec.statistics())
    series = (data.train["x"].array.astype(np.float64) - mean) / std
    if not np.isfinite(series).all():
        raise UserError(f"{data.spec.source} lacks values: the baselines need a whole series")

    def windows(split: Split) -> tuple[np.ndarray, np.ndarray]:
        x, y = ((split[name][:] - mean) / std for name in ("x", "y"))
        return x, y

    (x, y), (test_x, test_y) = windows(data.validation), windows(data.test)
    T, H = x.shape[1], y.shape[1]
    train = series[: int(data.train["x"].start[-1]) + T + H]
    fits = [fit(train, order) for order in range(1, T + 1)]
    with np.errstate(over="ignore", invalid="ignore"):  # an unstable one grows beyond all numbers
        measured = np.nan_to_num([errors(free_run(one, x, H), y) for one in fits], nan=np.inf)
        best = np.argmin(measured, axis=0)
        first, last = (errors(free_run(fits[n], test_x, H), test_y) for n in best)
    name = f"linear autoregression of order {best[0] + 1} (one step) and {best[1] + 1}"
    return {
        "persistence": errors(np.repeat(test_x[:, -1:], H, axis=1), test_y),
        name: Errors(first.first, last.last),
    }


def row(run: Any) -> str:
    """Describes a run by the flags that are not at their default, without its seed and series."""
    flags = publish.changed_flags(run.config).split()
    return " ".join(["forecast_rnn", *(flag for flag in flags if flag[:10] != "--dataset=")])


def table(folders: list[Path]) -> Iterator[str]:
    """Yields the lines of the table.

    Raises:
      UserError: a folder is not a finished run with forecasts, or the horizons differ.
    """
    runs = [run_folder.open_run(folder, run_folder.NEWEST) for folder in folders]
    for run in runs:
        if getattr(run.config, "target", "") != "forecast":
            raise UserError(f"{run.folder} makes no forecasts: name runs of forecast_rnn")
    horizons = {getattr(run.config, "horizon", 0) for run in runs}
    if len(horizons) > 1:
        raise UserError(f"the runs have horizons {sorted(horizons)}: compare equal ones")
    yield HEADER.format(*horizons)
    by_series: Callable[[Any], str] = lambda run: run.config.dataset  # noqa: E731
    for name, group in groupby(sorted(runs, key=by_series), key=by_series):
        series_runs = sorted(group, key=row)
        data = series_runs[0].experiment.load(series_runs[0].config)
        for label, error in baselines(data).items():
            yield f"| {name} | {label} | {error.first:.2g} | {error.last:.2g} |"
        for label, same in groupby(series_runs, key=row):
            summaries = [logger.read_summary(run.folder) for run in same]
            cells = [
                _spread([summary[f"test/{metric}"] for summary in summaries])
                for metric in ("nrmse_one_step", "nrmse")
            ]
            yield f"| {name} | `{label}`, {len(summaries)} seeds | {' | '.join(cells)} |"
        if name in ("mackey_glass", "embedded") and horizons == {84}:
            yield from (f"| {name} | {source} | | {x:.2g} |" for source, x in PUBLISHED.items())


def _spread(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.1g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2g}{deviation}"


def run(config: Config) -> dict[str, float]:
    """Prints the table.

    Raises:
      UserError: no run is named, or see `table`.
    """
    if not config.runs:
        raise UserError("--runs is empty: name run folders of forecast_rnn, such as --runs=runs/a")
    print("\n".join(table([Path(name) for name in config.runs.split(",")])))
    return {}


if __name__ == "__main__":
    cli.main(run, Config)
