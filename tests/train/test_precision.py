"""Loss of precision is named at the operation that causes it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.nn import recurrence
from jaxdl.nn.convolution import convolve
from jaxdl.tools.diff_precision import table
from jaxdl.train import precision


def test_the_error_of_a_cancellation_is_that_of_closed_form():
    def function(x):
        with jax.named_scope("layer"):
            return (x + 1e6) - 1e6

    x = np.float32(0.3)
    one, two = precision.losses(function, x)
    assert (two.layer, two.primitive, two.type) == ("layer", "sub", "float32[]")
    # Near 1e6, numbers of float32 are 1/16 apart: 0.3 becomes 0.3125.
    assert two.error == pytest.approx(0.3125 / float(x) - 1, rel=1e-6)
    assert one.error == pytest.approx((0.3125 - float(x)) / (1e6 + float(x)), rel=1e-6)
    assert two.before == one.error
    assert one.before == 0


def test_a_variance_of_squares_less_the_square_of_the_mean_is_named():
    x = np.random.default_rng(0).normal(1000, 1, 512).astype(np.float32)

    def variance(x):
        with jax.named_scope("norm"):
            return jnp.sqrt((x**2).mean() - x.mean() ** 2)

    worst = max(precision.losses(variance, x), key=lambda one: one.error - one.before)
    assert (worst.layer, worst.primitive) == ("norm", "sub")
    assert worst.error > 1e-3
    assert worst.before < 1e-6


@pytest.mark.parametrize("kind", ["scan", "while", "cond"])
def test_loops_are_computed_in_float64(kind):
    """The errors are those of float32 against NumPy's float64."""

    def function(x):
        if kind == "scan":
            return jax.lax.scan(lambda c, row: (c * row + 0.1, None), jnp.float32(1), x)[0]
        if kind == "while":
            count = jax.lax.while_loop(
                lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] / 3), (0, x[0])
            )
            return count[1]
        return jax.lax.cond(x[0] > 0, lambda x: x[0] / 3, lambda x: x[0], x)

    x = np.float32([1.1, 1.3, 1.7])
    a, b, c = x.astype(np.float64)
    tenth = float(np.float32(0.1))
    exact = {"scan": ((a + tenth) * b + tenth) * c + tenth, "while": a / 27, "cond": a / 3}[kind]
    last = [one for one in precision.losses(function, x) if one.primitive == kind][-1]
    assert last.error == pytest.approx(abs(float(function(x)) / exact - 1), rel=1e-3, abs=1e-12)


def test_convolutions_and_gradients_are_compared():
    generator = np.random.default_rng(0)
    x, w = (generator.random(shape, np.float32) for shape in ((2, 6, 6, 3), (3, 3, 3, 4)))

    def loss(w, x):
        with jax.named_scope("conv"):
            return jnp.sin(convolve(x, w, (1, 1), ((0, 0), (0, 0)))).sum()

    listed = precision.losses(jax.value_and_grad(loss), w, x)
    convolutions = [one for one in listed if one.primitive.startswith("convolution")]
    assert [one.phase for one in convolutions] == ["forward", "backward"]
    assert all(0 < one.error < 1e-6 for one in convolutions)


def test_sums_of_scattered_gradients_are_those_of_float64():
    """The gradient of an embedding adds the rows of equal tokens."""
    rows = np.random.default_rng(0).random((50, 3), np.float32)

    def gather(table):
        return jnp.vdot(table[jnp.zeros(50, int)], rows)

    listed = precision.losses(jax.grad(gather), np.ones((4, 3), np.float32))
    (found,) = [one for one in listed if one.primitive == "scatter-add"]
    narrow = np.asarray(jax.grad(gather)(np.ones((4, 3), np.float32)))[0]
    wide = rows.astype(np.float64).sum(axis=0)
    expected = np.linalg.norm(narrow - wide) / np.linalg.norm(wide)
    assert found.error == pytest.approx(expected, rel=1e-6)


def test_an_lstm_is_computed_in_float64():
    """Its error is that of float32 against a loop of NumPy."""
    generator = np.random.default_rng(0)
    shapes = (7, 2, 12), (3, 12), (12,), (2, 3), (2, 3)
    projected, kernel, bias, h, c = (generator.normal(size=s).astype(np.float32) for s in shapes)
    valid = np.ones((7, 2, 1), bool)

    def function(*operands):
        return recurrence.lstm.bind(*operands, backwards=False, keep=False)

    operands = projected, kernel, bias, valid, h, c
    found = next(one for one in precision.losses(function, *operands) if one.primitive == "lstm")
    h, c = h.astype(np.float64), c.astype(np.float64)
    states = []
    for gates in projected.astype(np.float64):
        i, f, g, o = np.split(gates + h @ kernel.astype(np.float64) + bias, 4, axis=1)
        sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    results = function(*operands)
    pairs = zip(jax.device_get(results), (np.stack(states), h, c), strict=True)
    errors = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs]
    assert found.error == pytest.approx(max(errors), rel=1e-6)


@pytest.mark.parametrize(
    ("narrow", "wide", "expected"),
    [
        ([3.0, 4.5], [3.0, 4.0], 0.1),
        ([0.0, 0.0], [0.0, 0.0], 0),
        ([-np.inf, np.nan, 4.5], [-np.inf, np.nan, 5.0], 0.1),
        ([np.nan, 1.0], [0.0, 1.0], np.inf),
        ([1.0], [np.inf], np.inf),
        ([np.inf], [-np.inf], np.inf),
    ],
)
def test_relative_errors_of_special_numbers(narrow, wide, expected):
    """An infinity of a mask hides no error, and a number that is lost is an infinite one."""
    assert precision.relative_error(np.float32(narrow), np.float64(wide)) == pytest.approx(expected)


def test_a_root_of_a_negative_rounding_error_is_named():
    def function(x):
        return jnp.sqrt((x + 2.0**24) - 2.0**24 - x)

    listed = precision.losses(function, np.float32(0.75))
    assert listed[-1].primitive == "sqrt"
    assert np.isinf(listed[-1].error)


def test_the_table_leaves_out_results_that_are_zero_but_for_rounding():
    """The mean of centred numbers is zero: in float64 it is rounding, and an error to nothing."""

    def centred(x):
        with jax.named_scope("mean"):
            return (x - x.mean()).mean() ** 2

    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    listed = precision.losses(centred, x)
    assert max(one.error for one in listed) > 1e7
    lost = precision.Loss("Net/Dense_0", "sub", "forward", "float32[2]", math.inf, 1e-7)
    bad = precision.Loss("Net/Dense_1", "sub", "forward", "float32[2]", 0.5, 1e-7)
    good = precision.Loss("Net/Dense_1", "add", "backward", "float32[2]", 1e-7, 1e-7)
    lines = table([*listed, bad, lost, good]).splitlines()
    zeros = sum(one.error > 1e6 for one in listed)
    assert f"not counted: {zeros} whose results are zero but for rounding" in lines
    assert lines[3:5] == [
        "inf      1.0e-07       Net/Dense_0 (sub, forward) float32[2]",
        "5.0e-01  1.0e-07       Net/Dense_1 (sub, forward) float32[2]",
    ]
    assert not any("mean (square" in line or "mean (integer_pow" in line for line in lines)
    assert "largest error forward: inf" in lines
    assert "largest error backward: 1.0e-07" in lines
