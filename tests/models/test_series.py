"""Forecasts are the repeated prediction of the next value, and see nothing of what comes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import UserError
from jaxdl.models.series import KINDS, Forecaster, Reconstructor, fill_forward, interpolate

B, T, H, C = 2, 7, 4, 2
SIZES = {"outputs": C, "features": 8, "layers": 2, "heads": 2}
RANDOM = np.random.RandomState(0)
VALUES = jnp.asarray(RANDOM.normal(size=(B, T + H, C)), jnp.float32)
KNOWN = jnp.ones_like(VALUES)
LINEAR = ((0.1, 0.0), (-0.5, 0.2), (1.3, 0.7), (0.05, -0.1))  # of three values, and constants
HOLES = jnp.asarray(RANDOM.uniform(size=VALUES.shape) > 0.4, jnp.float32).at[:, 0].set(0)


def forecaster(cell, objective="one_step", horizon=H):
    return Forecaster(
        length=T,
        horizon=horizon,
        linear=LINEAR,
        scale=(0.5, 2.0),
        cell=cell,
        objective=objective,
        **SIZES,
    )


def filled(model):
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), (VALUES, KNOWN), train=False))
    random = np.random.RandomState(1)
    return jax.tree.map(lambda a: jnp.asarray(random.normal(0, 0.4, a.shape), a.dtype), shapes)


@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("known", [KNOWN, HOLES], ids=["full", "with holes"])
def test_a_free_run_is_the_next_value_again_and_again(cell, known):
    model = forecaster(cell)
    variables = filled(model)
    apply = jax.jit(partial(model.apply, variables, train=False))
    found = apply((VALUES * known, known))["forecast"]
    assert found.shape == (B, H, C)
    # One step at a time, each from the whole series so far. Positions after it are not read.
    values, marks = VALUES * known, known.at[:, T:].set(1)
    for n in range(T, T + H):
        values = values.at[:, n].set(apply((values, marks))["steps"][:, n - 1])
    np.testing.assert_allclose(found, values[:, T:], rtol=1e-4, atol=1e-5)
    history = apply((VALUES[:, :T] * known[:, :T], known[:, :T]))
    np.testing.assert_allclose(history["forecast"], found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", KINDS)
def test_a_step_sees_nothing_of_what_comes(cell):
    model = forecaster(cell)
    variables = filled(model)

    def step(values, n):
        return jnp.sum(jnp.sin(model.apply(variables, (values, KNOWN), train=True)["steps"][:, n]))

    slope = jax.jit(jax.grad(step), static_argnums=1)(VALUES, 5)
    np.testing.assert_array_equal(slope[:, 6:], 0)
    assert np.all(np.any(np.asarray(slope[:, :6]) != 0, axis=-1))


@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_the_objectives_compute_what_they_need(cell):
    trained = {"one_step": {"steps"}, "free_run": {"forecast"}, "direct": {"forecast"}}
    for objective, names in trained.items():
        model = forecaster(cell, objective)
        variables = filled(model)
        both = [model.apply(variables, (VALUES, KNOWN), train=train) for train in (True, False)]
        assert set(both[0]) == names
        assert both[1]["forecast"].shape == (B, H, C)
        if objective == "free_run":
            np.testing.assert_allclose(both[0]["forecast"], both[1]["forecast"])
            free = forecaster(cell).apply(variables, (VALUES, KNOWN), train=False)
            np.testing.assert_allclose(free["forecast"], both[1]["forecast"], rtol=1e-5)


def test_a_direct_forecast_starts_from_the_last_known_value():
    model = forecaster("lstm", "direct")
    variables = jax.tree.map(jnp.zeros_like, filled(model))
    found = model.apply(variables, (VALUES * HOLES, HOLES), train=False)["forecast"]
    last = np.asarray(fill_forward(VALUES * HOLES, HOLES))[:, T - 1]
    np.testing.assert_array_equal(found, np.repeat(last[:, None], H, axis=1))


def test_without_a_network_it_is_the_linear_autoregression():
    model = forecaster("gru")
    variables = jax.tree.map(jnp.zeros_like, filled(model))
    found = model.apply(variables, (VALUES, KNOWN), train=False)
    values, linear = np.asarray(VALUES, np.float64), np.asarray(LINEAR)
    steps = sum(linear[n] * values[:, n : T + H - 2 + n] for n in range(3)) + linear[3]
    np.testing.assert_allclose(found["steps"][:, 2:], steps, rtol=1e-5, atol=1e-6)
    first = np.repeat(values[:, :1], 2, axis=1)
    start = np.concatenate([first, values[:, :1]], axis=1)
    np.testing.assert_allclose(
        found["steps"][:, 0], np.einsum("kc,bkc->bc", linear[:3], start) + linear[3], rtol=1e-5
    )
    run = list(values[:, :T].swapaxes(0, 1))
    for _ in range(H):
        run.append(sum(linear[n] * run[n - 3] for n in range(3)) + linear[3])
    np.testing.assert_allclose(found["forecast"], np.stack(run[T:], axis=1), rtol=1e-5, atol=1e-6)


def test_a_hole_is_filled_by_the_linear_autoregression():
    model = forecaster("gru")
    variables = jax.tree.map(jnp.zeros_like, filled(model))
    found = model.apply(variables, (VALUES * HOLES, HOLES), train=False)
    values, linear = np.array(VALUES * HOLES, np.float64), np.asarray(LINEAR)
    for n in range(T + H):
        before = [values[:, max(n - k, 0)] for k in (3, 2, 1)]
        wanted = sum(a * b for a, b in zip(linear, before, strict=False)) + linear[3]
        if n:
            np.testing.assert_allclose(found["steps"][:, n - 1], wanted, rtol=1e-4, atol=1e-5)
            values[:, n] = np.where(np.asarray(HOLES)[:, n] > 0, values[:, n], wanted)


@pytest.mark.parametrize("cell", KINDS)
def test_a_horizon_of_one(cell):
    model = forecaster(cell, horizon=1)
    found = model.apply(filled(model), (VALUES[:, : T + 1], KNOWN[:, : T + 1]), train=False)
    np.testing.assert_allclose(found["forecast"][:, 0], found["steps"][:, T - 1], rtol=1e-4)


@pytest.mark.parametrize("cell", KINDS)
def test_a_reconstruction_sees_both_sides_and_keeps_what_is_known(cell):
    model = Reconstructor(**SIZES, cell=cell, keep=True)
    variables = filled(model)
    apply = jax.jit(lambda values: model.apply(variables, (values * HOLES, HOLES), train=False))
    found = apply(VALUES)
    np.testing.assert_array_equal(found * HOLES, VALUES * HOLES)
    hole = int(np.argmin(HOLES[0, :, 0]))
    by = jax.grad(lambda values: apply(values)[0, hole, 0])(VALUES)[0]
    known = np.asarray(HOLES[0]) > 0
    assert np.all(np.asarray(by)[known] != 0)
    assert np.all(np.asarray(by)[~known] == 0)


def test_holes_are_filled_as_numpy_fills_them():
    found_last, found_line = (f(VALUES * HOLES, HOLES) for f in (fill_forward, interpolate))
    for b, c in np.ndindex(B, C):
        known = np.flatnonzero(HOLES[b, :, c])
        line = np.interp(np.arange(T + H), known, np.asarray(VALUES)[b, known, c])
        np.testing.assert_allclose(found_line[b, :, c], line, rtol=1e-5, atol=1e-6)
        last = [VALUES[b, known[known <= n][-1], c] if known[0] <= n else 0 for n in range(T + H)]
        np.testing.assert_array_equal(found_last[b, :, c], np.asarray(last, np.float32))
    np.testing.assert_array_equal(interpolate(VALUES, 0 * KNOWN), 0)


def test_mistakes_are_named():
    for model in (Reconstructor(**SIZES, cell="elman"), forecaster("elman")):
        with pytest.raises(UserError, match="cell=elman: give one of rnn, lstm, gru, transformer"):
            model.init(jax.random.key(0), (VALUES, KNOWN), train=False)
    with pytest.raises(UserError, match="heads=3"):
        Reconstructor(**SIZES | {"heads": 3}, cell="transformer").init(
            jax.random.key(0), (VALUES, KNOWN), train=False
        )
