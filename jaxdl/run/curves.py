"""Learning curves of runs, and plots of a metric against the hyperparameters of a sweep.

`plots` has the figures of a single evaluation, and the helpers for figures and labels used here.
"""

import contextlib
import math
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.console import cut
from jaxdl.errors import printable
from jaxdl.run.metrics_log import metric_names
from jaxdl.run.palette import BLUE, COLORS, ORANGE, SPLITS
from jaxdl.run.plots import (
    Lines,
    new_figure,
    no_backend,
    plain_label,
    save_figure,
    word_label,
)
from jaxdl.run.scales import log_scale, set_scales

LETTER = 0.075  # width of a letter in a legend or a caption, in inches
LINE = 0.2  # height of a line of a legend or a caption, in inches
PANEL = (4.6, 3.3)  # width and height of a panel with its margins, in inches
LARGEST = 1e100  # largest value drawn: matplotlib fails near the largest float
STYLES: dict[str, dict[str, Any]] = {  # line styles by split
    "train": {"linestyle": "-", "linewidth": 1.1, "alpha": 0.75},
    "validation": {"linestyle": "-", "linewidth": 1.6, "marker": "o", "markersize": 3.5},
    "test": {"linestyle": "none", "marker": "*", "markersize": 10},
}
MOST_PANELS = 60  # largest number of panels in a picture: a log may be a stranger's
CAPTION = (
    "Train: mean over the steps since the point before. Validation: the whole split. Test: the "
    "state that the run ends with."
)
BANDS = (
    " Lines: means over seeds, at the steps that all of them have. Bands: from the least to the "
    "greatest value."
)
SEED = "seed"
SEEDS = "Points: one run each. Line: their mean."
COMBINATIONS = (
    "Points: mean of a combination over its seeds, with the standard error. Line: mean of all "
    "combinations with the same value."
)
LAST = ("gradient_norm", "learning_rate")  # panels after the others


def curves(runs: dict[str, Lines], path: Path, groups: Mapping[str, str] | None = None) -> None:
    """Writes learning curves as a PNG; arguments as for `draw`."""
    save_figure(draw(runs, groups), path)


def draw(runs: dict[str, Lines], groups: Mapping[str, str] | None = None) -> Any:
    """Draws learning curves, one panel per metric.

    Training is a thin line; evaluations have markers. Metrics of evaluations come first. Only the
    first `MOST_PANELS` metrics are drawn.

    Args:
      runs: lines of `metrics.jsonl` by the run's name. The legend shows the names of several runs.
      groups: name of the group of each run, such as the runs that differ only in the seed. A group
        is drawn as its mean with a band. None: each run by itself.

    Returns:
      A matplotlib figure.
    """
    by_group: dict[str, list[Lines]] = {}
    for name, lines in runs.items():
        by_group.setdefault(groups[name] if groups else name, []).append(lines)
    names = _metrics([line for lines in runs.values() for line in lines])
    columns = 2 if len(names) in (2, 4) else min(len(names), 3) or 1
    rows = -(-len(names) // columns) or 1
    several, has_bands = len(by_group) > 1, any(len(group) > 1 for group in by_group.values())
    width = PANEL[0] * columns
    caption = textwrap.wrap(CAPTION + BANDS * has_bands, int(width / LETTER))
    labels = _labels(list(by_group), int((width - 0.5) / LETTER)) if several else []
    longest = max(map(len, labels), default=0)
    legend_columns = max(1, int(width / (LETTER * longest + 0.6)))
    below = LINE * len(caption) + 0.1
    legend = LINE * (1 + math.ceil(len(labels) / legend_columns)) + 0.1
    figure = _panels(rows, columns, legend=legend + below)
    drawn: list[tuple[Any, list[float], str]] = []
    for panel, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, panel + 1)
        values: list[float] = []
        for number, group in enumerate(by_group.values()):
            for split, style in STYLES.items():
                own = _line_color(number) if several else {"color": SPLITS[split]}
                values += _draw_line(axes, [_points(x, split, name) for x in group], own | style)
        drawn.append((axes, values, name))
        # A fixed position: measuring one is slow.
        axes.set_title(plain_label(name.replace("_", " ")), y=1.0)
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    set_scales(drawn)
    height = figure.get_figheight()
    figure.text(0.65 / width, 0.08 / height, "\n".join(caption), fontsize="small", color="0.3")
    _legends(figure, labels, legend_columns, below / height)
    return figure


def _metrics(lines: Lines) -> list[str]:
    """Returns the metrics to draw: those of evaluations first, and among them loss."""
    evaluated = {name for x in lines if x["split"] != "train" for name in metric_names(x)}
    names = dict.fromkeys(name for line in lines for name in metric_names(line))

    def place(name: str) -> tuple[bool, bool, bool]:
        return name not in evaluated, name in LAST, name != "loss"

    return sorted(names, key=place)[:MOST_PANELS]


def _draw_line(axes: Any, members: list[list[tuple[int, float]]], style: dict[str, Any]) -> Any:
    """Draws the points of a run, or the mean and the band of several; returns all values."""
    values = [value for points in members for _, value in points]
    if len(members) == 1 or style["linestyle"] == "none":
        shown = [point for points in members for point in points]
    else:
        by_step: dict[int, list[float]] = {}
        for points in members:
            for step, value in dict(points).items():
                by_step.setdefault(step, []).append(value)
        whole = {step: v for step, v in sorted(by_step.items()) if len(v) == len(members)}
        shown = [(step, float(np.mean(v))) for step, v in whole.items()]
        ends = [(min(v), max(v)) for v in whole.values()]
        if len(shown) > 1:
            low, high = zip(*ends, strict=True)
            axes.fill_between(list(whole), low, high, color=style["color"], alpha=0.18, linewidth=0)
    if shown:
        # A line of a single point would be invisible.
        dot = {} if shown[1:] else {"marker": "."}
        axes.plot(*zip(*shown, strict=True), **dot | style)
    return values


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
        axes.spines[["top", "right"]].set_visible(False)
        pairs = [(value, seeds) for value, seeds in pairs if seeds]
        values = sorted({value for value, _ in pairs})
        numbers = _numbers(values)
        is_wide = bool(numbers and 0 < 10 * min(numbers) <= max(numbers))
        if numbers is None:
            positions = {value: float(n) for n, value in enumerate(values)}
            axes.set_xticks(list(positions.values()), [plain_label(value) for value in values])
            axes.set_xlim(-0.5, len(values) - 0.5)
        else:
            positions = dict(zip(values, numbers, strict=True))
            if len(numbers) <= 8 and not is_wide:
                axes.set_xticks(numbers, values)
        means: dict[float, list[float]] = {}
        for value, seeds in pairs:
            x, mean = positions[value], np.mean(seeds)
            error = np.std(seeds, ddof=1) / len(seeds) ** 0.5 if seeds[1:] else 0
            axes.errorbar(x, mean, error, fmt="o", markersize=4, color=BLUE, alpha=0.7)
            means.setdefault(x, []).append(float(mean))
        if name == SEED:  # a line from seed to seed would mean nothing
            axes.axhline(float(np.mean([*means.values()])), color=ORANGE, linewidth=1.2)
        elif numbers is not None and len(means) > 1:
            line = [(x, np.mean(means[x])) for x in sorted(means)]
            axes.plot(*zip(*line, strict=True), color=ORANGE, linewidth=1.2)
        if is_wide:
            log_scale(axes, "x")
    caption = SEEDS if list(panels) == [SEED] else COMBINATIONS
    text = textwrap.wrap(caption, int(4.6 * columns / LETTER))
    figure.supxlabel("\n".join(text), fontsize="small", color="0.3", x=0.02, ha="left")
    save_figure(figure, path)


def _points(lines: Lines, split: str, name: str) -> list[tuple[int, float]]:
    """Returns the steps and values of a metric on a split that can be drawn."""
    values = [(x["step"], x.get(name)) for x in lines if x["split"] == split]
    return [(step, v) for step, v in values if v is not None and abs(v) < LARGEST]


def run_names(names: list[str]) -> list[str]:
    """Returns the paths of runs, relative to the folder that holds all of them."""
    if len(names) < 2 or "" in names:
        return names
    with contextlib.suppress(ValueError):  # paths on different drives, absolute and relative ones
        common = os.path.commonpath(names) or "."
        names = [os.path.relpath(name, common) for name in names]
    return names


def _labels(names: list[str], most: int) -> list[str]:
    """Returns the names of runs for a legend, cut to `most` characters."""
    return [word_label(cut(printable(name), min(most, 80))) for name in run_names(names)]


def _line_color(number: int) -> dict[str, Any]:
    """Returns the color of a run; those of more than seven repeat in lighter shades."""
    with no_backend():
        from matplotlib.colors import to_rgb

    shade = 0.2 * (number // len(COLORS) % 4)
    red, green, blue = to_rgb(COLORS[number % len(COLORS)])
    return {"color": tuple(c + (1 - c) * shade for c in (red, green, blue))}


def _legends(figure: Any, labels: list[str], columns: int, bottom: float) -> None:
    """Draws legends of the splits, and of the runs if there are several, below all panels.

    Args:
      figure: the figure.
      labels: names of the runs; empty if there is one.
      columns: columns of the legend of runs.
      bottom: height of its lower end, as a share of the figure.
    """
    with no_backend():
        from matplotlib.lines import Line2D

    rows, height = math.ceil(len(labels) / columns), figure.get_figheight()
    splits = [
        Line2D([], [], color="0.3" if labels else SPLITS[split], **style)
        for split, style in STYLES.items()
    ]
    runs = [Line2D([], [], **_line_color(n), linewidth=3) for n in range(len(labels))]
    options = {"loc": "lower center", "fontsize": "small", "frameon": False}
    above = bottom + rows * LINE / height
    figure.legend(splits, list(STYLES), bbox_to_anchor=(0.5, above), ncols=3, **options)
    if runs:
        figure.legend(runs, labels, bbox_to_anchor=(0.5, bottom), ncols=columns, **options)


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
