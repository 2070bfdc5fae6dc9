"""One command trains on a file; bad input is one line; baselines are closed forms."""

import os
import subprocess
import sys

import numpy as np
import pytest

from experiments import forecast_rnn
from experiments.benchmarks import series_baselines
from jaxdl.__main__ import run as command
from jaxdl.data import series
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags
from jaxdl.run import plots

FLAGS = ["--columns=a,b", "--length=20", "--horizon=10", "--features=12", "--num_steps=80"]
FLAGS += ["--batch_size=16", "--learning_rate=0.01", "--eval_every=40"]


def table(path, points=240):
    """Two waves, one of them with missing values, and a column of text."""
    lines = ["day,a,b"]
    for n in range(points):
        b = "" if n % 19 == 4 else f"{np.cos(n / 7) * 3:.5f}"
        lines.append(f"2024-{n},{100 + 10 * np.sin(n / 5):.4f},{b}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(*flags):
    return forecast_rnn.run(parse_flags(forecast_rnn.Config, flags))


def test_a_file_is_learnt_in_one_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "sales.csv")
    summary = run("--dataset=./sales.csv", *FLAGS, "--workdir=run")
    assert summary["test/nrmse"] < 0.9  # that of the last value is 1.5
    assert summary["test/nrmse_one_step"] < 0.15  # that of the last value is 0.17
    assert (tmp_path / "run" / "plots" / "windows.png").stat().st_size > 10_000
    (tmp_path / "sales.csv").rename(tmp_path / "moved.csv")
    command(["evaluate", "run", "--checkpoint=newest", f"--dataset={tmp_path / 'moved.csv'}"])
    assert f"nrmse = {summary['test/nrmse']}" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--target=denoise", "--noise=0.5"], ["--target=impute"]])
def test_noise_and_gaps_are_removed(flags, tmp_path):
    path = table(tmp_path / "a.csv")
    more = ["--gap=5", "--cell=transformer", "--heads=2", "--layers=2"]
    summary = run(f"--dataset={path}", *FLAGS, *more, *flags, f"--workdir={tmp_path / 'run'}")
    assert summary["test/nrmse"] < summary["test/nrmse_input"]
    assert (tmp_path / "run" / "plots" / "windows.png").exists()


def test_the_figure_has_every_window_and_column_up_to_a_limit(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: kept.append(figure))
    values = np.arange(40.0).reshape(5, 8)
    values[2] = np.nan
    window = {"history": (0, values), "truth": (5, values), "forecast": (5, values + 1)}
    names = ["日本", "$x$", *"cdefgh"]
    plots.series([window, window], names, "a $title$", tmp_path / "x.png")
    axes = kept[0].axes
    assert len(axes) == 2 * plots.MOST_COLUMNS
    history, truth, forecast = axes[2].lines  # of the second column
    np.testing.assert_array_equal(history.get_xdata(), range(5))
    np.testing.assert_array_equal(forecast.get_xdata(), range(5, 10))
    np.testing.assert_array_equal(truth.get_ydata(), values[:, 1])
    assert axes[0].get_ylabel() == r"\u65e5\u672c"
    assert axes[2].get_ylabel() == r"\$x\$"
    monkeypatch.undo()
    plots.series([window], names, "a $title$", tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--columns=a,c"], "column 'c' is not there"),
        (["--columns=day,a"], "column day: '2024-0' is not a number"),
        (["--columns=a", "--length=300"], "--length=300"),
        (["--columns=a", "--dataset=./none.csv"], "cannot read"),
        (["--columns=a", "--batch_size=999"], "--batch_size=999"),
    ],
)
def test_bad_input_writes_nothing(flags, message, tmp_path):
    path = table(tmp_path / "sales.csv")
    with pytest.raises(UserError, match=message):
        run(f"--dataset={path}", *FLAGS, *flags, f"--workdir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_a_mistake_is_one_line_and_status_2(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(b"a,b\n1,2\n3\0,4\n")
    words = ["-m", "experiments.forecast_rnn", f"--dataset={path}", "--workdir=run"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert ended.returncode == 2
    assert "NUL" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_linear_series_is_continued_exactly():
    """x(n) = 1.6 x(n-1) - 0.9 x(n-2) + 0.3, a damped wave."""
    values = [0.0, 1.0]
    for _ in range(198):
        values.append(1.6 * values[-1] - 0.9 * values[-2] + 0.3)
    column = np.asarray(values)[:, None]
    np.testing.assert_allclose(
        series_baselines.fit(column[:60], 2)[:, 0], (-0.9, 1.6, 0.3), atol=1e-9
    )
    windows = np.stack([column[n : n + 5] for n in range(20)])
    forecast = series_baselines.free_run(series_baselines.fit(column[:60], 3), windows, 8)
    np.testing.assert_allclose(forecast[:, :, 0], [values[n + 5 : n + 13] for n in range(20)])


def test_baselines_of_two_columns():
    random = np.random.RandomState(0)
    values = np.cumsum(random.normal(size=(300, 2)), axis=0)
    data = series.dataset(series.Series("made", ("a", "b"), values, ""), length=4, horizon=3)
    found = series_baselines.baselines(data)
    x, y = data.test["x"][:].astype(np.float64), data.test["y"][:].astype(np.float64)
    error = (x[:, -1:] - y) / data.spec.constant("std")
    expected = [np.sqrt(np.mean(error[:, n] ** 2)) for n in (0, -1)]
    np.testing.assert_allclose(found.pop("persistence"), expected, rtol=1e-6)
    (name,) = found
    assert name.startswith("linear autoregression of order ")
    assert 0.5 * expected[0] < found[name].first < 1.5 * expected[0]


def test_the_table_has_a_row_of_each_series_and_setting(tmp_path):
    small = ["--points=600", "--length=12", "--horizon=6", "--features=4", "--num_steps=4"]
    folders = [tmp_path / str(seed) for seed in range(2)]
    for seed, folder in enumerate(folders):
        run(*small, "--batch_size=8", f"--seed={seed}", f"--workdir={folder}")
    lines = list(series_baselines.table(folders))
    assert lines[0].startswith("| series | forecast | one step | step 6 |\n")
    assert [line.split(" | ")[1].split()[0] for line in lines[1:]] == [
        "persistence",
        "linear",
        "`forecast_rnn",
    ]
    assert lines[-1].startswith("| mackey_glass | `forecast_rnn --num_steps=4 ")
    assert "--dataset" not in lines[-1]
    assert "`, 2 seeds | " in lines[-1]
    assert lines[-1].count("±") == 2
