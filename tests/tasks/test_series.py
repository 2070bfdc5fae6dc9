"""Losses and errors of series beside NumPy's, with missing values; noise and gaps that stay."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import forecast_rnn
from jaxdl import metrics
from jaxdl.data import series as data_series
from jaxdl.data.batches import padded_batches, read
from jaxdl.errors import UserError
from jaxdl.tasks import series

SMALL = {"length": 6, "horizon": 4, "features": 4, "batch_size": 8, "cell": "gru"}


@pytest.fixture(scope="module")
def made():
    """Two columns with missing values."""
    random = np.random.RandomState(0)
    values = np.cumsum(random.normal(size=(80, 2)), axis=0) * (2, 0.3) + (50, -3)
    values[random.uniform(size=values.shape) < 0.15] = np.nan
    return data_series.Series("made", ("a", "b"), values, "made")


def prepared(made, **flags):
    config = forecast_rnn.Config(**SMALL | flags)
    horizon = config.horizon if config.target == "forecast" else 0
    data = data_series.dataset(made, length=config.length, horizon=horizon)
    task = forecast_rnn.build(config, data.spec)
    return config, data, task, task.init(jax.random.key(1))


def evaluated(task, state, split, batch_size):
    totals = [jax.jit(task.evaluate)(state, b) for b in padded_batches(split, batch_size)]
    total = totals[0]
    for other in totals[1:]:
        total = metrics.add(total, other)
    return {name: float(value) for name, value in metrics.divide(total).items()}


@pytest.mark.parametrize("objective", ["one_step", "free_run", "direct"])
def test_errors_of_forecasts_are_numpys(made, objective):
    _, data, task, state = prepared(made, objective=objective)
    found = evaluated(task, state, data.test, 5)
    batch = read(data.test, np.arange(len(data.test["x"])))
    std, scale = (data.spec.constant(name).astype(np.float64) for name in ("std", "scale"))
    forecast = np.asarray(task.predict(state, {"x": batch["x"]}), np.float64)
    error = (forecast - batch["y"]) / std
    for name, n in (("nrmse", -1), ("nrmse_one_step", 0)):
        assert found[name] == pytest.approx(np.sqrt(np.nanmean(error[:, n] ** 2)), rel=1e-4)
    if objective != "one_step":
        assert found["loss"] == pytest.approx(np.nanmean(error**2), rel=1e-4)
        return
    # Each target is forecast as the first one after the true values before it.
    squares = []
    for n in range(4):
        whole = np.concatenate([batch["x"], batch["y"]], axis=1)[:, : 6 + n]
        values, known = series.normalize(jnp.asarray(whole), *data.spec.statistics())
        steps = task.predict.apply(state, (values, known))["steps"][:, -1]
        expected = np.asarray(steps) * std + data.spec.constant("mean")
        squares.append(((expected - batch["y"][:, n]) / std / scale) ** 2)
    assert found["loss"] == pytest.approx(np.nanmean(squares), rel=1e-3)


@pytest.mark.parametrize("target", ["denoise", "impute"])
def test_errors_of_reconstructions_are_numpys(made, target):
    config, data, task, state = prepared(made, target=target, noise=0.5, gap=2)
    found = evaluated(task, state, data.validation, 3)
    again = evaluated(task, state, data.validation, 8)
    assert found == pytest.approx(again, rel=1e-5)  # noise and gaps go with the window
    rows = np.arange(len(data.validation["x"]))
    x = data.validation["x"][rows]
    corrupted = np.asarray(series.corrupt(config, data.spec, jnp.asarray(x), jnp.asarray(rows)))
    std = data.spec.constant("std").astype(np.float64)
    outputs = np.asarray(task.predict(state, {"x": jnp.asarray(corrupted)}), np.float64)
    assert np.isfinite(outputs).all()
    error = (outputs - x) / std
    assert found["loss"] == pytest.approx(np.nanmean(error**2), rel=1e-3)
    if target == "impute":
        gaps = np.isnan(corrupted).all(axis=2) & (np.arange(6) >= 0)
        assert (gaps.sum(1) >= 2).all()
        hidden = np.isfinite(x) & np.isnan(corrupted)
        np.testing.assert_allclose(
            outputs[~hidden & np.isfinite(x)], x[~hidden & np.isfinite(x)], rtol=1e-5
        )
        error = error[hidden]
    else:
        np.testing.assert_allclose(
            found["nrmse_input"], np.sqrt(np.nanmean(((corrupted - x) / std) ** 2)), rtol=1e-4
        )
        assert 0.3 < found["nrmse_input"] < 0.7
    assert found["nrmse"] == pytest.approx(np.sqrt(np.nanmean(error**2)), rel=1e-3)


@pytest.mark.parametrize(
    "flags",
    [{}, {"noise": 0.3}, {"target": "denoise", "noise": 0.3}, {"target": "impute", "gap": 2}],
    ids=str,
)
def test_training_draws_anew_at_every_step(made, flags):
    _, data, task, state = prepared(made, **flags)
    rows = np.arange(8)
    batch = read(data.train, rows) | {"index": rows, "mask": np.ones(8, np.float32)}
    step = jax.jit(task.step)
    _, first = step(state, batch)
    _, same = step(state, batch)
    _, later = step(state._replace(step=state.step + 1), batch)
    losses = [float(m["loss"][0] / m["loss"][1]) for m in (first, same, later)]
    assert np.isfinite(losses).all()
    assert np.isfinite(float(first["gradient_norm"][0]))
    assert losses[0] == losses[1]
    assert (losses[0] != losses[2]) == bool(flags)


def test_a_missing_value_has_no_gradient_and_no_weight(made):
    """A column that is never known after the start: its error does not count."""
    values = made.values.copy()
    values[48:, 1] = np.nan
    _, data, task, state = prepared(dataclasses.replace(made, values=values))
    found = evaluated(task, state, data.test, 8)
    assert np.isfinite(list(found.values())).all()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"target": "denoise"}, "--noise=0: give"),
        ({"target": "impute", "gap": 6}, "--gap=6 hides all of --length=6"),
    ],
)
def test_nothing_to_learn_is_refused(flags, message):
    with pytest.raises(UserError, match=message):
        forecast_rnn.Config(**SMALL | flags)


def test_a_file_has_an_absolute_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert forecast_rnn.Config(dataset="./a.csv").dataset == str(tmp_path / "a.csv")
    assert forecast_rnn.Config(dataset="lorenz").dataset == "lorenz"
