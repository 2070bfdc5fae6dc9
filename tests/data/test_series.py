"""Integrated series beside other integrations, columns of CSV files, and windows without a leak."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jaxdl.data import series
from jaxdl.data.batches import read
from jaxdl.data.columns import read_columns
from jaxdl.errors import UserError

TIGHT = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-13}


def test_lorenz_is_scipys():
    values = series.lorenz(101).values
    rates = lambda t, s: (10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2])  # noqa: E731
    times = 0.02 * np.arange(101)  # two time units, in which an error grows sixfold
    expected = solve_ivp(rates, (0, 2), values[0], t_eval=times, **TIGHT).y.T
    np.testing.assert_allclose(values, expected, atol=1e-6)
    # The washout: from (1, 1, 1), over 5 of its 20 time units.
    start = series.lorenz(1, washout=250).values
    expected = solve_ivp(rates, (0, 5), (1.0, 1.0, 1.0), **TIGHT).y[:, -1]
    np.testing.assert_allclose(start[0], expected, atol=1e-6)


def test_mackey_glass_is_the_method_of_steps():
    """Solved by SciPy on one interval of the delay after the other, from the constant history."""
    found = series.mackey_glass(171, washout=0).values[:, 0]
    before, pieces = (lambda t: np.full((1, *np.shape(t)), 1.2)), [np.array([1.2])]
    for n in range(10):
        start, past = 17.0 * n, before
        rates = lambda t, x, past=past: 0.2 * past(t - 17) / (1 + past(t - 17) ** 10) - 0.1 * x  # noqa: E731
        times = start + np.arange(1, 18)
        solved = solve_ivp(
            rates, (start, start + 17), pieces[-1][-1:], t_eval=times, dense_output=True, **TIGHT
        )
        before = solved.sol
        pieces.append(solved.y[0])
    np.testing.assert_allclose(found, np.concatenate(pieces), atol=2e-6)


@pytest.mark.parametrize("name", series.SYSTEMS)
def test_a_system_is_chaotic_not_periodic_and_always_the_same(name):
    one, other = series.load(name, 600), series.load(name, 900)
    np.testing.assert_array_equal(one.values, other.values[:600])
    assert one.values.dtype == np.float64
    assert one.values.shape == (600, len(one.columns))
    near = np.abs(one.values[None] - one.values[:, None]).max(-1)[np.triu_indices(600, 1)]
    assert near.min() > 0
    assert series.load("embedded", 20).name == "mackey_glass"


def written(folder, text, name="sales.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_of_a_file(tmp_path):
    text = '\ufeffday,"a, b",c\r\n1,2.5,\r\n"2", -1e3 ,NaN\r\n3,n/a,7\r\n\r\n'
    path = written(tmp_path, text)
    names, values = read_columns(path, ("c", "a, b"))
    assert names == ("c", "a, b")
    np.testing.assert_array_equal(values, [[np.nan, 2.5], [np.nan, -1000], [7, np.nan]])
    assert read_columns(path)[0] == ("day", "a, b", "c")
    assert series.load(str(path), 0, 'c, "a, b"').columns == ("c", "a, b")
    (one,) = read_columns(written(tmp_path, "a\n1\n\n3\n"))[1].T
    np.testing.assert_array_equal(one, [1, np.nan, 3])


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("a,b\n1,2\n", ("a", "d"), "column 'd' is not there: .* has a, b"),
        ("a,a\n1,2\n", ("a",), "'a' is named twice"),
        ("a,b\n1,2\n", ("a", "a"), "'a' is named twice"),
        ("a,\n1,2\n", (), "column '' is not there"),
        ("a,b\n1,2\n3,high\n", (), "line 3, column b: 'high' is not a number"),
        ("a\n1_000\n", (), "line 2, column a: '1_000'"),
        ("a\ninf\n", (), "line 2, column a: 'inf'"),
        ("a\n1e31\n", (), "at most 1e30"),
        ("a,b\n1,2\n3\n", (), "line 3 has 1 cells, and line 1 has 2 names"),
        ("a\n1\n2,\n", (), "line 3 has 2 cells"),
        ("1,2\n3,4\n", (), "line 1 has no names"),
        ("a\n1\0\n", (), "NUL"),
        (b"a\n\xff\n", (), "not UTF-8"),
        ('a,b\n"1,2\n', (), "is not CSV"),
        ('a,b\n"1"x,2\n', (), "line 2 is not CSV"),
        ("\n\n", (), "is empty"),
        ("", (), "is empty"),
        (",".join(map(str, range(5000))) + "\n", (), "5,000 columns, more than 4,096"),
    ],
)
def test_a_bad_file_is_one_line(text, columns, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        read_columns(written(tmp_path, text), columns)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_no_file_and_no_data_set(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        series.load(str(tmp_path / "none.csv"), 100)
    with pytest.raises(UserError, match="cannot read"):
        series.load(str(tmp_path), 100)
    with pytest.raises(UserError, match="choose mackey_glass, lorenz, embedded, or a CSV file"):
        series.load("sales", 100)
    with pytest.raises(UserError, match="column 'w' is not there: lorenz has x, y, z"):
        series.load("lorenz", 100, "x,w")
    assert series.load("lorenz", 100, "z,x").columns == ("z", "x")


def counting(points):
    """A series whose values are their positions."""
    values = np.arange(points, dtype=np.float64)[:, None]
    return series.Series("counting", ("n",), values, "made")


def test_targets_are_in_the_order_of_time_and_in_one_part():
    data = series.dataset(
        counting(100), length=7, horizon=3, validation_fraction=0.2, test_fraction=0.3
    )
    parts = {"train": (0, 50), "validation": (50, 70), "test": (70, 100)}
    for name, (begin, end) in parts.items():
        split = getattr(data, name)
        x, y = split["x"][:][..., 0], split["y"][:][..., 0]
        assert x.shape[1:] == (7,)
        np.testing.assert_array_equal(x[:, -1] + 1, y[:, 0])
        assert sorted(set(y.ravel())) == list(range(max(begin, 7), end))
        assert np.all(np.diff(np.concatenate([x, y], 1)) == 1)
    assert data.spec.shape("y") == (3, 1)
    assert data.spec.num_train == 41
    nbytes = data.train["x"].nbytes
    assert nbytes < 10 * 100 * 4  # not of the windows
    windows = series.dataset(counting(100), length=7)
    assert set(windows.train) == {"x"}
    assert windows.validation["x"][:].min() == 60  # without a history in the training part


def test_constants_are_those_of_the_training_part():
    random = np.random.RandomState(0)
    values = random.normal(size=(50, 2)) * (3, 0.1) + (5, -2)
    values[[3, 8, 9, 20], [0, 1, 1, 0]] = np.nan
    made = series.Series("made", ("a", "b"), values, "")
    spec = series.dataset(made, length=4, horizon=2).spec
    train = values[:30]
    np.testing.assert_allclose(spec.constant("mean"), np.nanmean(train, 0), rtol=1e-6)
    np.testing.assert_allclose(spec.constant("std"), np.nanstd(train, 0), rtol=1e-6)
    column = (train[:, 1] - np.nanmean(train[:, 1])) / np.nanstd(train[:, 1])
    coefficients, error = series.autoregression(column, 2)
    np.testing.assert_allclose(spec.constant("linear")[:, 1], coefficients, rtol=1e-6)
    assert spec.constant("scale")[1] == pytest.approx(error)
    again = series.dataset(made, length=9, horizon=1).spec
    assert again.fingerprint == spec.fingerprint
    values[-1, -1] += 1e-12
    assert series.dataset(made, length=4, horizon=2).spec.fingerprint != spec.fingerprint


def test_an_autoregression_is_that_of_least_squares():
    """x(n) = 1.6 x(n-1) - 0.9 x(n-2) + 0.3 and noise, and the normal equations."""
    random, values = np.random.RandomState(0), [0.0, 1.0]
    for _ in range(300):
        values.append(1.6 * values[-1] - 0.9 * values[-2] + 0.3)
    exact, error = series.autoregression(np.asarray(values[:60]), 2)
    np.testing.assert_allclose(exact, (-0.9, 1.6, 0.3), atol=1e-9)
    assert error < 1e-12
    noisy = np.asarray(values) + 0.1 * random.normal(size=len(values))
    noisy[[7, 50]] = np.nan
    found, error = series.autoregression(noisy, 3)
    whole = [n for n in range(3, len(noisy)) if np.isfinite(noisy[n - 3 : n + 1]).all()]
    inputs = np.array([[*noisy[n - 3 : n], 1.0] for n in whole])
    expected = np.linalg.solve(inputs.T @ inputs, inputs.T @ noisy[whole])
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    assert error == pytest.approx(np.sqrt(np.mean((noisy[whole] - inputs @ expected) ** 2)))
    few, error = series.autoregression(np.array([1.0, 3.0, np.nan, 4.0]), 2)
    np.testing.assert_array_equal(few, [0, 1, 0])
    assert error == 1
    few, error = series.autoregression(np.array([1.0, 3.0, np.nan, 4.0]), 1)
    np.testing.assert_array_equal(few, [1, 0])
    assert error == 2


def test_windows_have_values_at_their_targets():
    made = counting(60)
    made.values[[5, 6, 7, 8, 30, 45, 50]] = np.nan
    data = series.dataset(made, length=3, horizon=4)
    for split in (data.train, data.validation, data.test):
        batch = read(split, np.arange(len(split["x"])))
        assert np.isfinite(batch["x"]).any(axis=(1, 2)).all()
        assert np.isfinite(batch["y"][:, [0, -1]]).all()
    assert np.isnan(data.train["x"][:]).any()
    assert np.isnan(data.train["y"][:]).any()


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (30, {"length": 20}, "none of the 18 points for training .*--length=20"),
        (30, {"length": 5, "horizon": 8}, "6 points for validation .*--length=5, --horizon=8"),
        (30, {"length": 5, "test_fraction": 0.0}, "0 points for test"),
        (30, {"length": 5, "validation_fraction": 1.0}, "0 points for training"),
    ],
)
def test_a_short_series_is_refused(points, options, message):
    with pytest.raises(UserError, match=message):
        series.dataset(counting(points), **options)


@pytest.mark.parametrize("value", [4.0, np.nan])
def test_a_column_without_two_values_is_refused(value):
    made = counting(40)
    made.values[:20] = value
    made.values[20:23] = 4
    with pytest.raises(UserError, match="column n of counting has no two different values"):
        series.dataset(made, length=3, validation_fraction=0.2, test_fraction=0.225)
