"""Tables and numbers on terminals of any width."""

import contextlib
import io
import re
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from jaxdl import console
from jaxdl.console import Training
from jaxdl.errors import Paused, TrainingError
from jaxdl.signals import Stopped


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (3e-5, "3e-05"), (1e-5, "1e-05"), (0.8125, "0.8125"), (1.5, "1.5"),
        (15590.4, "15,590"), (-2500.0, "-2,500"), (float("nan"), "nan"), (1e18, "1e+18"),
    ],
)  # fmt: skip
def test_numbers_in_words(value, text):
    assert console.number(value) == text


@pytest.mark.parametrize("most", [12, 13, 30])
def test_a_name_is_cut_in_its_middle(most):
    name = "runs/learning_rate=0.1,seed=12"
    short = console.cut(name, most)
    assert len(short) == min(most, len(name))
    assert short.startswith("runs")
    assert short.endswith("12")


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_figures_are_never_cut(width, monkeypatch):
    file = io.StringIO()
    made = Console(file=file, width=width, markup=False, emoji=False, highlight=False)
    monkeypatch.setattr(console, "console", lambda: made)
    columns = ["run", "learning_rate", *(f"best/validation/metric_{n}" for n in range(6))]
    rows = [(f"runs/experiment/{n}-" + 30 * "x", 3e-05, *(12345.678 + n,) * 6) for n in range(3)]
    console.show(columns, rows)
    lines = file.getvalue().splitlines()
    assert len(lines) == 4 + (width < 200)
    assert all(len(line) <= width for line in lines[:4])
    for n, line in enumerate(lines[1:4]):
        run, *figures = line.split()
        assert run.startswith("runs/e")
        assert run.endswith("x")
        assert figures == ["3e-05", *[f"{12345.678 + n}"] * (len(figures) - 1)]
    if width < 200:
        assert lines[4].startswith("no room for best/validation/metric_")


@pytest.mark.parametrize("width", [50, 80, 120])
def test_bar_steps_and_time_are_there_at_any_width(width, monkeypatch):
    file = io.StringIO()
    terminal = Console(file=file, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr("jaxdl.console.console", lambda stderr: terminal)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    bar = Training(4000, 0, lambda rate: {"examples_per_second": rate, "flops_per_second": rate})
    values = {"accuracy": 0.5, "gradient_norm": 1.25, "loss": 15590.0, "perplexity": 3e-5}
    bar.show(2000, "train", values)
    bar.close()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    last = [line for line in re.split(r"[\r\n]", plain) if line.strip()][-1]
    assert "2000/4000" in last
    assert "loss 15,590" in last or width == 50
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in last
    assert len(last) <= width


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (TrainingError("no"), "failed"),
        (ValueError("no"), "failed"),
        (Paused("at 50"), "paused"),
        (Stopped(15, "by a signal"), "stopped"),
        (None, "loss 0.5"),
    ],
)
def test_a_notebooks_bar_ends_with_the_step_and_how_the_run_ended(error, end, monkeypatch):
    shown = []
    handle = SimpleNamespace(update=shown.append)
    display = SimpleNamespace(HTML=str, display=lambda html, **_: shown.append(html) or handle)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr("jaxdl.notebook.is_active", lambda: True)
    speed = lambda rate: {"examples_per_second": rate, "flops_per_second": rate}  # noqa: E731
    with contextlib.suppress(BaseException), Training(100, 0, speed) as bar:
        bar.show(40, "train", {"loss": 0.5})
        bar.advance(50)
        if error:
            raise error
    assert "50/100" in shown[-1]
    assert end in shown[-1]
    assert ("compiling" in shown[-1], "compiling" in shown[0]) == (False, True)
