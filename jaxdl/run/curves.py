"""Learning curves of runs, and a metric against each flag of a sweep."""

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.errors import printable, shortened
from jaxdl.run.metrics_log import metric_names
from jaxdl.run.plots import Lines, new_figure, no_backend, plain_label, save_figure, word_label

LETTER = 0.075  # inches, of a legend
STEEP = 30  # times the median: a value beyond that has a logarithmic axis drawn
PANEL = (4.6, 3.3)  # inches: width and height, with its margins
LARGEST = 1e100  # value that is drawn: matplotlib fails near the largest float
STYLES: dict[str, dict[str, Any]] = {  # by split
    "train": {"linestyle": "-", "linewidth": 1.0, "alpha": 0.55},
    "validation": {"linestyle": "-", "linewidth": 1.6, "marker": "o", "markersize": 3.5},
    "test": {"linestyle": "none", "marker": "*", "markersize": 9},
}
MOST_PANELS = 60  # of a picture; a log may be a stranger's


def curves(runs: dict[str, Lines], path: Path) -> None:
    """Draws one panel a metric: training as a thin line, evaluations with markers.

    Args:
      runs: the lines of `metrics.jsonl` by the run's name; the legend names them if there are many.
      path: of the PNG.

    Of more than `MOST_PANELS` metrics the first ones are drawn.
    """
    lines = [line for run in runs.values() for line in run]
    names = list(dict.fromkeys(k for line in lines for k in metric_names(line)))[:MOST_PANELS]
    columns = min(len(names), 3) or 1
    rows = -(-len(names) // columns) or 1
    labels = _labels(list(runs))
    longest = max(map(len, (*labels, "validation")))
    beside = max(1, int(PANEL[0] * columns / (LETTER * longest + 0.6)))
    entries = len(STYLES) + (len(runs) if len(runs) > 1 else 0)
    figure = _panels(rows, columns, legend=0.2 * math.ceil(entries / beside) + 0.1)
    colors = _colors(len(runs))
    for panel, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, panel + 1)
        drawn: list[float] = []
        for color, run_lines in zip(colors, runs.values(), strict=True):
            for shade, (split, style) in enumerate(STYLES.items()):
                points = _points(run_lines, split, name)
                drawn += [value for _, value in points]
                if points:
                    own = color if len(runs) > 1 else f"C{shade}"
                    dot = {} if points[1:] else {"marker": "."}  # else a line of one is none
                    axes.plot(*zip(*points, strict=True), color=own, **dot | style)
        if _steep(drawn):
            axes.set_yscale("log")
        else:
            axes.ticklabel_format(axis="y", scilimits=(-3, 4))
        axes.set_title(plain_label(name.replace("_", " ")), y=1.0)  # given: not measured
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
    _legend(figure, labels, colors, beside)
    save_figure(figure, path)


def _points(lines: Lines, split: str, name: str) -> list[tuple[int, float]]:
    """Steps and values of a metric on a split, without those that cannot be drawn."""
    values = [(x["step"], x.get(name)) for x in lines if x["split"] == split]
    return [(step, v) for step, v in values if v is not None and abs(v) < LARGEST]


def _steep(values: list[float]) -> bool:
    """True for positive values of which one dwarfs the rest, so that the others show nothing."""
    return bool(values) and min(values) > 0 and max(values) > STEEP * float(np.median(values))


def _labels(names: list[str]) -> list[str]:
    """Names for a legend: without the folder that all of them are in."""
    common = os.path.commonpath(names) if len(names) > 1 and "" not in names else ""
    with contextlib.suppress(ValueError):  # on other drives
        names = [os.path.relpath(name, common) if common else name for name in names]
    return [word_label(printable(shortened(name))) for name in names]


def _colors(count: int) -> list[Any]:
    """Returns one color a run; of more than twenty, neighbours are similar."""
    with no_backend():
        import matplotlib

    if count <= 10:
        return [f"C{n}" for n in range(count)]
    if count <= 20:
        return list(matplotlib.colormaps["tab20"](np.arange(count)))
    return list(matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def _legend(figure: Any, labels: list[str], colors: list[Any], columns: int) -> None:
    """One legend below all panels, where it covers no curve: the splits, and the runs if many."""
    with no_backend():
        from matplotlib.lines import Line2D

    several = len(labels) > 1
    handles, texts = [], []
    for shade, (split, style) in enumerate(STYLES.items()):
        handles.append(Line2D([], [], color="0.3" if several else f"C{shade}", **style))
        texts.append(split)
    if several:
        handles += [Line2D([], [], color=color, linewidth=3) for color in colors]
        texts += labels
    figure.legend(
        handles, texts, loc="lower center", ncols=columns, fontsize="small", frameon=False
    )


def _panels(rows: int, columns: int, legend: float) -> Any:
    """A figure with room for panels, and below them for a legend of so many inches.

    Margins are given, wide enough for six digits: to measure them takes as long as to draw.
    """
    left, right, top, bottom = 0.65, 0.2, 0.4, 0.5  # inches, of each panel
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


def against(panels: dict[str, list[tuple[str, list[float]]]], title: str, path: Path) -> None:
    """Draws a metric against each hyperparameter: a point a combination, over it its seeds' spread.

    Numbers stand on an axis of numbers, a logarithmic one where they span a factor of ten; words
    stand side by side. A line goes through the mean of the combinations at each value.

    Args:
      panels: by the hyperparameter's name, pairs of its value and the metric of each seed.
      title: of the metric.
      path: of the PNG.
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
        words = sorted({value for value, _ in pairs})
        numbers = _numbers(words)
        if numbers is None:
            places = {word: float(n) for n, word in enumerate(words)}
            axes.set_xticks(list(places.values()), [plain_label(word) for word in words])
            axes.set_xlim(-0.5, len(words) - 0.5)
        else:
            places = dict(zip(words, numbers, strict=True))
            if min(numbers) > 0 and max(numbers) >= 10 * min(numbers):
                axes.set_xscale("log")
            elif len(numbers) <= 8:
                axes.set_xticks(numbers, words)
        means: dict[float, list[float]] = {}
        for value, seeds in pairs:
            mean = np.mean(seeds)
            spread = np.std(seeds, ddof=1) / len(seeds) ** 0.5 if seeds[1:] else 0
            axes.errorbar(places[value], mean, spread, fmt="o", markersize=4, color="C0", alpha=0.6)
            means.setdefault(places[value], []).append(float(mean))
        if numbers is not None and len(means) > 1:
            line = [(x, np.mean(means[x])) for x in sorted(means)]
            axes.plot(*zip(*line, strict=True), color="C1", linewidth=1.2)
    save_figure(figure, path)


def _numbers(words: list[str]) -> list[float] | None:
    try:
        return [float(word) for word in words]
    except ValueError:
        return None
