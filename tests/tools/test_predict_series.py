"""The `predict` command on time series: forecasts, and windows that cover a file."""

import csv
import json

import numpy as np
import pytest

import jaxdl
from jaxdl import cli
from jaxdl.__main__ import run as command
from jaxdl.errors import UserError
from jaxdl.export import answers
from tests.export.models import train

FLAGS = ["--columns=price,step", "--length=8", "--horizon=3", "--batch_size=4"]
FLAGS += ["--checkpoint_every=2", "--eval_every=2"]


def table(count, seed=0):
    """Two columns of a series, and a column that the model does not read."""
    random = np.random.RandomState(seed)
    return np.round(np.cumsum(random.normal(size=(count, 2)), axis=0), 3)


def write(path, values, ending="\n"):
    lines = [f"{b},Bern,{a}".replace("nan", "") for a, b in values.tolist()]
    path.write_text("\n".join(["step,city,price", *lines]) + ending, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("series")
    write(path / "sales.csv", table(120))
    return path


@pytest.fixture(scope="module")
def forecast(folder):
    train("forecast_rnn", folder / "run", f"--dataset={folder / 'sales.csv'}", *FLAGS)
    return folder / "run"


@pytest.fixture(scope="module")
def impute(folder):
    more = ["--target=impute", "--gap=2"]
    train("forecast_rnn", folder / "other", f"--dataset={folder / 'sales.csv'}", *FLAGS, *more)
    return folder / "other"


def status(*words):
    return cli.guard(lambda: command(["predict", *map(str, words)]))


def read(path):
    """Columns of a CSV file."""
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_the_last_window_is_forecast(forecast, tmp_path, capsys):
    values = table(11, seed=1)
    values[6, 0] = np.nan
    a, b = write(tmp_path / "a.csv", values, ending="\n\n"), write(tmp_path / "b.csv", values[:8])
    assert status(forecast, a, b, f"--output={tmp_path / 'o.csv'}") == 0
    columns = read(tmp_path / "o.csv")
    assert list(columns) == ["input", "step", "price", "step_"]
    assert columns["input"] == [str(a)] * 3 + [str(b)] * 3
    assert columns["step"] == ["1", "2", "3"] * 2
    wanted = jaxdl.open(forecast).predict(np.stack([values[3:], values[:8]]).astype(np.float32))
    for name, column in (("price", 0), ("step_", 1)):
        np.testing.assert_allclose(
            np.float64(columns[name]), wanted[..., column].ravel(), rtol=1e-5, atol=1e-5
        )
    assert status(forecast, a, f"--output={tmp_path / 'o.json'}") == 0
    records = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    assert [record["step"] for record in records] == [1, 2, 3]
    assert status(forecast, a, b, f"--output={tmp_path / 'o.npz'}") == 0
    with np.load(tmp_path / "o.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["input", "prediction"]
        np.testing.assert_allclose(arrays["prediction"], wanted, rtol=1e-5, atol=1e-5)
    np.save(tmp_path / "x.npy", values[None, :8].astype(np.float32), allow_pickle=False)
    capsys.readouterr()
    assert status(forecast, tmp_path / "x.npy") == 0
    out = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert out == [["input", "step"], *([f"{tmp_path / 'x.npy'}:1", str(n)] for n in (1, 2, 3))]


@pytest.mark.parametrize("count", [8, 9, 16, 23])
def test_windows_cover_a_file(impute, tmp_path, count):
    values = table(count, seed=2)
    values[4:6] = np.nan
    path = write(tmp_path / "a.csv", values)
    assert status(impute, path, path, f"--output={tmp_path / 'o.csv'}") == 0
    columns = read(tmp_path / "o.csv")
    assert columns["row"] == [str(n + 1) for n in range(count)] * 2
    starts = [*range(0, count - 8, 8), count - 8]
    windows = np.stack([values[n : n + 8] for n in starts]).astype(np.float32)
    wanted = np.full((count, 2), np.nan)
    for start, window in reversed(
        list(zip(starts, jaxdl.open(impute).predict(windows), strict=True))
    ):
        wanted[start : start + 8] = window
    found = np.stack([np.float64(columns[name][:count]) for name in ("price", "step")], axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert np.isfinite(found).all()
    assert status(impute, path, f"--output={tmp_path / 'o.npz'}") == 0
    with np.load(tmp_path / "o.npz", allow_pickle=False) as arrays:
        assert arrays["start"].tolist() == starts
        assert arrays["prediction"].shape == (len(starts), 8, 2)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("price,step\n" + "1,2\n" * 7, "has 7 rows, and a window has 8: give at least as many"),
        ("price,day\n" + "1,2\n" * 8, "has no column step: its first row must name the columns"),
        ("price;step\n" + "1;2\n" * 8, "seems to be separated by semicolons: separate its cells"),
        ("price,step\n" + "1,x\n" * 8, "line 2, column step: 'x' is not a number of at most 1e30"),
        ("price,step\n1\n" + "1,2\n" * 8, "line 2 has 1 cells, and line 1 has 2 names"),
        ("price,step\n\n" + "1,2\n" * 8, "line 2 has 1 cells, and line 1 has 2 names"),
        ("price,step\n" + ",\n" * 8, "rows 1 to 8: all values are missing: give some"),
        ('price,step\n"1,2\n' * 8, "is not CSV"),
        ('"price\n', "is not CSV"),
        ("", "is empty: give at least one line"),
    ],
)
def test_a_wrong_series_is_one_line(forecast, tmp_path, capsys, content, why):
    path = tmp_path / "a.csv"
    path.write_text(content, encoding="utf-8")
    assert status(forecast, path, f"--output={tmp_path / 'o.csv'}") == 2
    _, line = capsys.readouterr().err.splitlines()  # after the one on the checkpoint
    assert why in line
    assert "--columns" not in line
    assert str(path) in line
    assert not (tmp_path / "o.csv").exists()


def test_a_series_in_python_is_an_array(forecast):
    with pytest.raises(UserError, match=r"a dict, and the model takes arrays x float32 .N, 8, 2"):
        jaxdl.open(forecast).predict({"price": 1.0, "step": 2.0})


def test_positions_that_are_there_twice_are_left_out():
    windows = np.arange(8, dtype=np.float32).reshape(2, 4, 1)
    columns = answers.to_series(windows, [("f", 0, 0), ("f", 2, 2)], ["row"], "row")
    assert columns == {
        "input": ["f"] * 6, "row": [1, 2, 3, 4, 5, 6], "row_": [0, 1, 2, 3, 6, 7],
    }  # fmt: skip


@pytest.mark.parametrize("value", [np.inf, -1e39])
def test_an_infinite_value_is_not_a_missing_one(forecast, value):
    windows = np.zeros((2, 8, 2))
    windows[1, 3, 0] = value
    with pytest.raises(UserError, match=r"'x' holds .*: give numbers within float32, or NaN"):
        jaxdl.open(forecast).predict(windows)
