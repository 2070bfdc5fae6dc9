"""Learning curves of runs, and plots of a metric against the hyperparameters of a sweep.

`plots` has the figures of a single evaluation, and the helpers for figures and labels used here.
"""

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.errors import printable, shortened
from jaxdl.run.metrics_log import metric_names
from jaxdl.run.plots import Lines, new_figure, no_backend, plain_label, save_figure, word_label

LETTER = 0.075  # width of a letter in a legend, in inches
STEEP = 30  # ratio of maximum to median above which the axis is logarithmic
PANEL = (4.6, 3.3)  # width and height of a panel with its margins, in inches
LARGEST = 1e100  # largest value drawn: matplotlib fails near the largest float
STYLES: dict[str, dict[str, Any]] = {  # line styles by split
    "train": {"linestyle": "-", "linewidth": 1.0, "alpha": 0.55},
    "validation": {"linestyle": "-", "linewidth": 1.6, "marker": "o", "markersize": 3.5},
    "test": {"linestyle": "none", "marker": "*", "markersize": 9},
}
MOST_PANELS = 60  # largest number of panels in a picture: a log may be a stranger's


def curves(runs: dict[str, Lines], path: Path) -> None:
    """Draws learning curves, one panel per metric.

    Training is a thin line; evaluations have markers. Only the first `MOST_PANELS` metrics are
    drawn.

    Args:
      runs: lines of `metrics.jsonl` by the run's name. The legend shows the names of several runs.
      path: path of the PNG.
    """
    lines = [line for run in runs.values() for line in run]
    names = list(dict.fromkeys(k for line in lines for k in metric_names(line)))[:MOST_PANELS]
    columns = min(len(names), 3) or 1
    rows = -(-len(names) // columns) or 1
    labels = _labels(list(runs))
    longest = max(map(len, (*labels, "validation")))
    legend_columns = max(1, int(PANEL[0] * columns / (LETTER * longest + 0.6)))
    entries = len(STYLES) + (len(runs) if len(runs) > 1 else 0)
    figure = _panels(rows, columns, legend=0.2 * math.ceil(entries / legend_columns) + 0.1)
    colors = _colors(len(runs))
    for panel, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, panel + 1)
        values: list[float] = []
        for run_color, run_lines in zip(colors, runs.values(), strict=True):
            for number, (split, style) in enumerate(STYLES.items()):
                points = _points(run_lines, split, name)
                values += [value for _, value in points]
                if points:
                    color = run_color if len(runs) > 1 else f"C{number}"
                    # A line of a single point would be invisible.
                    dot = {} if points[1:] else {"marker": "."}
                    axes.plot(*zip(*points, strict=True), color=color, **dot | style)
        if _is_steep(values):
            axes.set_yscale("log", subs=(2, 5))  # ticks take most of the time of a picture
        else:
            axes.ticklabel_format(axis="y", scilimits=(-3, 4))
        axes.set_title(
            plain_label(name.replace("_", " ")), y=1.0
        )  # a fixed position: measuring one is slow
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
    _legend(figure, labels, colors, legend_columns)
    save_figure(figure, path)


def metric_vs_hyperparameters(
    panels: dict[str, list[tuple[str, list[float]]]], title: str, path: Path
) -> None:
    """Draws a metric against each hyperparameter of a sweep, one panel each.

    A point is a combination of hyperparameters: the mean over its seeds, with the standard error. A
    line joins the means at each value. The axis of a numeric hyperparameter is logarithmic if the
    values span a factor of ten. Other values stand side by side.

    Args:
      panels: by the hyperparameter's name, pairs of its value and the metric of each seed.
      title: name of the metric.
      path: path of the PNG.
    """
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = new_figure(figsize=(4.6 * columns, 3.4 * rows), layout="constrained")
    for number, (name, pairs) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_ylabel(plain_label(title.replace("_", " ")))
        axes.set_xlabel(plain_label(name.replace("_", " ")))
        axes.grid(alpha=0.25)
        pairs = [(value, seeds) for value, seeds in pairs if seeds]
        values = sorted({value for value, _ in pairs})
        numbers = _numbers(values)
        if numbers is None:
            positions = {value: float(n) for n, value in enumerate(values)}
            axes.set_xticks(list(positions.values()), [plain_label(value) for value in values])
            axes.set_xlim(-0.5, len(values) - 0.5)
        else:
            positions = dict(zip(values, numbers, strict=True))
            if min(numbers) > 0 and max(numbers) >= 10 * min(numbers):
                axes.set_xscale("log")
            elif len(numbers) <= 8:
                axes.set_xticks(numbers, values)
        means: dict[float, list[float]] = {}
        for value, seeds in pairs:
            x, mean = positions[value], np.mean(seeds)
            error = np.std(seeds, ddof=1) / len(seeds) ** 0.5 if seeds[1:] else 0
            axes.errorbar(x, mean, error, fmt="o", markersize=4, color="C0", alpha=0.6)
            means.setdefault(x, []).append(float(mean))
        if numbers is not None and len(means) > 1:
            line = [(x, np.mean(means[x])) for x in sorted(means)]
            axes.plot(*zip(*line, strict=True), color="C1", linewidth=1.2)
    save_figure(figure, path)


def _points(lines: Lines, split: str, name: str) -> list[tuple[int, float]]:
    """Returns the steps and values of a metric on a split that can be drawn."""
    values = [(x["step"], x.get(name)) for x in lines if x["split"] == split]
    return [(step, v) for step, v in values if v is not None and abs(v) < LARGEST]


def _is_steep(values: list[float]) -> bool:
    """Returns True for positive values with an outlier that would flatten a linear axis."""
    return bool(values) and min(values) > 0 and max(values) > STEEP * float(np.median(values))


def _labels(names: list[str]) -> list[str]:
    """Returns the names of runs for a legend, relative to the folder that holds all of them."""
    common = os.path.commonpath(names) if len(names) > 1 and "" not in names else ""
    with contextlib.suppress(ValueError):  # paths on different drives
        names = [os.path.relpath(name, common) if common else name for name in names]
    return [word_label(printable(shortened(name))) for name in names]


def _colors(count: int) -> list[Any]:
    """Returns one color per run; if there are more than twenty, neighbours are similar."""
    with no_backend():
        import matplotlib

    if count <= 10:
        return [f"C{n}" for n in range(count)]
    if count <= 20:
        return list(matplotlib.colormaps["tab20"](np.arange(count)))
    return list(matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def _legend(figure: Any, labels: list[str], colors: list[Any], columns: int) -> None:
    """Draws a legend of the splits, and of the runs if there are several, below all panels."""
    with no_backend():
        from matplotlib.lines import Line2D

    several = len(labels) > 1
    handles, texts = [], []
    for number, (split, style) in enumerate(STYLES.items()):
        handles.append(Line2D([], [], color="0.3" if several else f"C{number}", **style))
        texts.append(split)
    if several:
        handles += [Line2D([], [], color=color, linewidth=3) for color in colors]
        texts += labels
    figure.legend(
        handles, texts, loc="lower center", ncols=columns, fontsize="small", frameon=False
    )


def _panels(rows: int, columns: int, legend: float) -> Any:
    """Creates a figure with room for panels, and for a legend below them.

    The margins are fixed and fit labels of six digits. Measuring them takes as long as drawing.

    Args:
      rows: rows of panels.
      columns: columns of panels.
      legend: height of the legend, in inches.
    """
    left, right, top, bottom = 0.65, 0.2, 0.4, 0.5  # margins of each panel, in inches
    width, height = PANEL[0] * columns, PANEL[1] * rows + legend
    figure = new_figure(figsize=(width, height))
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=(bottom + legend) / height,
        wspace=(left + right) / (PANEL[0] - left - right),
        hspace=(top + bottom) / (PANEL[1] - top - bottom),
    )
    return figure


def _numbers(texts: list[str]) -> list[float] | None:
    """Returns the texts as numbers, or None if one is not a number."""
    try:
        return [float(text) for text in texts]
    except ValueError:
        return None
