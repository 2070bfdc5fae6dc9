"""Forecasts, denoising and imputation of time series by recurrent networks or a Transformer.

    python -m experiments.forecast_rnn                               # Mackey-Glass, delay 17
    python -m experiments.forecast_rnn --dataset=lorenz --cell=gru
    python -m experiments.forecast_rnn --dataset=./sales.csv --columns=price,amount --horizon=14
    python -m experiments.forecast_rnn --target=impute               # or denoise, with --noise=0.5

The network corrects a linear autoregression of each column, and is trained to predict the next
value. A forecast feeds its predictions back for `--horizon` steps; `nrmse` is the error of the last
of them.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import cli
from jaxdl.config import flag
from jaxdl.data.batches import Split, read, size
from jaxdl.data.spec import DataSpec
from jaxdl.models.series import KINDS, Forecaster, Reconstructor
from jaxdl.run import plots
from jaxdl.task import Task
from jaxdl.tasks import series
from jaxdl.tasks.series import load
from jaxdl.tasks.supervised import TrainState
from jaxdl.train import loop

SHOWN = 3  # number of windows in the figure


@dataclasses.dataclass(frozen=True)
class Config(series.SeriesConfig):
    """LSTM that is trained to predict the next value."""

    cell: str = flag("lstm", "cell of the recurrent layers, or transformer", choices=KINDS)
    features: int = flag(64, "features of each layer", low=1, high=65536)
    layers: int = flag(1, "recurrent layers or Transformer blocks", low=1, high=100)
    heads: int = flag(4, "attention heads of a transformer; divides --features", low=1, high=1024)
    length: int = 48
    num_steps: int = 3000
    batch_size: int = 32
    optimizer: str = "muon"
    learning_rate: float = 0.02
    clip_norm: float = 1.0
    eval_every: int = 500
    checkpoint_every: int = 500


def build(config: Config, spec: DataSpec) -> Task:
    """Builds the task of --target."""
    sizes: dict[str, Any] = {n: getattr(config, n) for n in ("cell", "features", "layers", "heads")}
    sizes |= {"outputs": len(spec.columns), "dtype": jnp.dtype(config.dtype)}
    if config.target == "forecast":
        own: dict[str, Any] = {n: getattr(config, n) for n in ("length", "horizon", "objective")}
        own |= {name: dict(spec.constants)[name] for name in ("linear", "scale")}
        return series.forecast(config, Forecaster(**own, **sizes), spec)
    model = Reconstructor(keep=config.target == "impute", **sizes)
    return series.reconstruct(config, model, spec)


def run(config: Config) -> dict[str, Any]:
    """Trains the model and returns the content of `summary.json`."""
    data = load(config)

    def final_eval(task: Task, state: TrainState, folder: Path) -> dict[str, float]:
        rows = np.linspace(0, size(data.test) - 1, SHOWN).round().astype(np.int32)
        windows = lines(config, task, state, data.spec, read(data.test, rows), rows)
        title = f"{config.target}, {data.spec.name}, windows of the test split"
        plots.series(windows, data.spec.columns, title, folder / "plots" / "windows.png")
        return {}

    return loop.train(config, build, data, best=("nrmse", min), final_eval=final_eval)


def lines(
    config: Config, task: Task, state: TrainState, spec: DataSpec, batch: Split, rows: np.ndarray
) -> list[dict[str, tuple[int, np.ndarray]]]:
    """Lines of the figure for each window: position of the first value and values, by label."""
    x, truth, first, label = jnp.asarray(batch["x"]), batch["x"], 0, "history"
    if config.target == "forecast":
        truth, first = batch["y"], config.length
    else:
        x = series.corrupt(config, spec, x, jnp.asarray(rows))
        label = "input with noise" if config.target == "denoise" else "input with a gap"
    outputs = np.asarray(jax.jit(task.predict)(state, {"x": x}))
    return [
        {label: (0, known), "truth": (first, true), config.target: (first, output)}
        for known, true, output in zip(np.asarray(x), truth, outputs, strict=True)
    ]


if __name__ == "__main__":
    cli.main(run, Config)
