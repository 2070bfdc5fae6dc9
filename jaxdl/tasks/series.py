"""Time series: flags and data, and the tasks of forecasting and of reconstructing windows.

Networks see each column with mean 0 and standard deviation 1, and errors are in units of the
standard deviation of the training part: a normalised root mean square error (NRMSE) of 1 is that of
the mean.

Shapes: B windows of T positions with C columns, H positions after them.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import augment, metrics
from jaxdl.config import absolute, flag
from jaxdl.data import series
from jaxdl.data.batches import Dataset
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.hyperparameters import is_static
from jaxdl.models.series import Pair, interpolate
from jaxdl.task import Batch, Key, Task
from jaxdl.tasks.supervised import Model
from jaxdl.tasks.supervised_config import SupervisedConfig, supervised_from_config


@dataclasses.dataclass(frozen=True)
class SeriesConfig(SupervisedConfig):
    """Data and task of a time series."""

    dataset: str = flag(
        "mackey_glass",
        "mackey_glass, lorenz, embedded (mackey_glass), or a CSV file /PATH or ./PATH with names "
        "in its first line and rows in the order of time",
    )
    columns: str = flag("", "columns to learn, separated by commas; default: all")
    points: int = flag(5000, "points of mackey_glass or lorenz", low=16, high=10**7)
    validation_fraction: float = flag(
        0.2, "fraction of the points, those before the test's", low=0.0, high=1.0
    )
    test_fraction: float = flag(0.2, "fraction of the points, the last ones", low=0.0, high=1.0)
    target: str = flag(
        "forecast",
        "forecast: the values after a window; denoise: the window without --noise; impute: a gap "
        "of --gap positions in the window",
        choices=("forecast", "denoise", "impute"),
    )
    length: int = flag(84, "positions of a window", low=2, high=65536)
    horizon: int = flag(84, "positions to forecast after a window", low=1, high=65536)
    objective: str = flag(
        "one_step",
        "training of a forecast; one_step: each next value from the true ones before it; free_run: "
        "the network's own forecasts fed back; direct: all values at once, nothing is fed back",
        choices=("one_step", "free_run", "direct"),
    )
    noise: float = flag(
        0.0,
        "standard deviation of Gaussian noise on inputs, in units of the column's; in evaluation "
        "only with --target=denoise",
        low=0.0,
        high=100.0,
    )
    order: int = flag(
        2,
        "values before each one in the linear autoregression of a column, which the network of a "
        "forecast corrects",
        low=1,
        high=64,
    )
    gap: int = flag(16, "positions of the gap of --target=impute", low=1, high=65536)

    def __post_init__(self) -> None:
        """Makes the path of a file absolute, as a run may be opened from another folder."""
        super().__post_init__()
        if series.is_file(self.dataset):
            object.__setattr__(self, "dataset", absolute(self.dataset, "dataset"))

    def validate(self) -> None:
        """Refuses a task without anything to learn.

        Raises:
          UserError: --target=denoise without --noise, or --target=impute with a gap of the whole
            window.
        """
        super().validate()
        if self.target == "denoise" and not self.noise:
            raise UserError(
                "--target=denoise with --noise=0: give the standard deviation of the noise, such "
                "as --noise=0.5"
            )
        if self.target == "impute" and self.gap >= self.length:
            raise UserError(
                f"--gap={self.gap} hides all of --length={self.length} positions: give at most "
                f"--gap={self.length - 1}"
            )


def load(config: SeriesConfig) -> Dataset:
    """Loads the series of --dataset, and cuts it into windows for --target."""
    return series.dataset(
        series.load(config.dataset, config.points, config.columns),
        length=config.length,
        horizon=config.horizon if config.target == "forecast" else 0,
        order=config.order,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
    )


def forecast(config: SeriesConfig, model: Model, spec: DataSpec) -> Task:
    """Builds the task of forecasting.

    The loss is the squared error of the H values after a window. If the objective is `one_step`,
    they are predicted from the true values before each, and the error is in units of that
    of the linear autoregression. The
    metric `nrmse` is the error of the last of them, and `nrmse_one_step` that of the first one,
    both forecast from the window alone.

    Args:
      config: the run's config.
      model: see `jaxdl.models.series.Forecaster`.
      spec: description of the data.

    Returns:
      A task whose outputs are forecasts [B, H, C] in the units of the data.
    """
    (mean, std), scale = spec.statistics(), spec.constant("scale")
    T, one_step = config.length, config.objective == "one_step"
    noisy = not is_static(config.noise, 0)

    def preprocess(batch: Batch) -> Batch:
        values, known = normalize(jnp.concatenate([batch["x"], batch["y"]], axis=1), mean, std)
        y, counted = values[:, T:], known[:, T:] * batch["mask"][:, None, None]
        if "noise" in batch:
            values = values + batch["noise"] * known
        entries: Any = {"y": y, "series": (values, known), "mask": flat(counted)}
        return batch | entries

    def add_noise(key: Key, batch: Batch) -> Batch:
        if not noisy:
            return batch
        shape = (*batch["mask"].shape, T + config.horizon, len(mean))
        return batch | {"noise": config.noise * jax.random.normal(key, shape)}

    def loss(outputs: dict[str, jax.Array], batch: Batch) -> jax.Array:
        if not one_step:
            return flat(jnp.square(outputs["forecast"] - batch["y"]))
        error = outputs["steps"][:, T - 1 : -1] - batch["y"]
        return flat(jnp.square(error / scale[None, None]))

    def metrics_fn(outputs: dict[str, jax.Array], batch: Batch) -> metrics.Metrics:
        error, counted = outputs["forecast"] - batch["y"], batch["mask"].reshape(batch["y"].shape)
        last, first = (nrmse(error[:, n], counted[:, n]) for n in (-1, 0))
        return {"nrmse": last, "nrmse_one_step": first}

    return supervised_from_config(
        config,
        model,
        spec,
        loss=loss,
        metrics_fn=metrics_fn,
        train_metrics_fn=lambda outputs, batch: {},
        preprocess=preprocess,
        prepare=lambda batch: normalize(batch["x"], mean, std),
        finish=lambda outputs: outputs["forecast"] * std[None, None] + mean[None, None],
        kind="numbers",
        augment=add_noise,
        inputs="series",
    )


def reconstruct(config: SeriesConfig, model: Model, spec: DataSpec) -> Task:
    """Builds the task of recovering a window from one with noise or with a gap.

    The loss is the squared error at all positions. `nrmse` is the error at all positions, or in
    the gap, and `nrmse_input` that of the input, whose gap is closed by a straight line. The noise
    or the gap of an evaluated window depends only on its number in the split.

    Args:
      config: the run's config.
      model: a pair [B, T, C] -> windows [B, T, C], such as `jaxdl.models.series.Reconstructor`.
      spec: description of the data.

    Returns:
      A task whose outputs are windows [B, T, C] in the units of the data. Its inputs are windows as
      they are, with NaN in a gap.
    """
    mean, std = spec.statistics()
    imputes = config.target == "impute"

    def corrupt_batch(key: Key, batch: Batch) -> Batch:
        return batch | {"corrupted": corrupt(config, spec, batch["x"], batch["index"], key)}

    def preprocess(batch: Batch) -> Batch:
        if "corrupted" not in batch:
            batch = batch | {"corrupted": corrupt(config, spec, batch["x"], batch["index"])}
        values, known = normalize(batch["x"], mean, std)
        pair = normalize(batch["corrupted"], mean, std)
        counted = known * batch["mask"][:, None, None]
        judged = counted * (1 - pair[1]) if imputes else counted
        entries: Any = {"y": values, "judged": judged, "series": pair, "mask": flat(counted)}
        return batch | entries

    def metrics_fn(outputs: jax.Array, batch: Batch) -> metrics.Metrics:
        return {
            "nrmse": nrmse(outputs - batch["y"], batch["judged"]),
            "nrmse_input": nrmse(interpolate(*batch["series"]) - batch["y"], batch["judged"]),
        }

    return supervised_from_config(
        config,
        model,
        spec,
        loss=lambda outputs, batch: flat(jnp.square(outputs - batch["y"])),
        metrics_fn=metrics_fn,
        train_metrics_fn=lambda outputs, batch: {},
        preprocess=preprocess,
        prepare=lambda batch: normalize(batch["x"], mean, std),
        finish=lambda outputs: outputs * std[None, None] + mean[None, None],
        kind="numbers",
        augment=corrupt_batch,
        inputs="series",
    )


def corrupt(
    config: SeriesConfig, spec: DataSpec, x: jax.Array, index: jax.Array, key: Key | None = None
) -> jax.Array:
    """Adds noise to windows, or cuts a gap of NaN into them, as --target says.

    Args:
      config: the run's config.
      spec: description of the data.
      x: windows [B, T, C] in the units of the data.
      index: number of each window, int32 [B], from which its noise or gap is drawn.
      key: random key; None: that of every evaluation.
    """
    _, std = spec.statistics()
    T, C = x.shape[1:]
    fixed = jax.random.key(0) if key is None else key

    def draw(index: jax.Array) -> jax.Array:
        own = jax.random.fold_in(fixed, index)
        if config.target == "denoise":
            return config.noise * jax.random.normal(own, (T, C)) * std[None]
        after = jnp.arange(T) - jax.random.randint(own, (), 0, T - config.gap + 1)
        hidden = (after >= 0) & (after < config.gap)
        return jnp.where(hidden, jnp.nan, 0.0)[:, None]

    return x + jax.vmap(draw)(index)


def normalize(x: jax.Array, mean: np.ndarray, std: np.ndarray) -> Pair:
    """Normalises a series with missing values.

    Args:
      x: [B, T, C], NaN where a value is missing.
      mean: [C].
      std: [C].

    Returns:
      The normalised values, 0 where missing, and 1 where known or 0, float32 [B, T, C] each.
    """
    known = jnp.isfinite(x)
    values = augment.normalize(jnp.where(known, x, 0), mean, std)
    return jnp.where(known, values, 0), known.astype(jnp.float32)


def nrmse(error: jax.Array, counted: jax.Array) -> metrics.RootMean:
    """Root mean square of normalised errors [B, ...], of those that are counted [B, ...]."""
    return metrics.RootMean(*metrics.mean(jnp.square(error), counted))


def flat(a: jax.Array) -> jax.Array:
    """Joins all axes after the first one: [B, T, C] -> [B, T * C]."""
    return a.reshape(a.shape[0], -1)
