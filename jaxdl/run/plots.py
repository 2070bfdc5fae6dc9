"""Plots of an evaluation: confusion matrices, decision boundaries, attention.

It uses matplotlib's objects and no global figure. `curves` draws with the helpers at the end of
this module. `pictures` has images and animations, which need no matplotlib.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import files
from jaxdl.errors import printable, shortened
from jaxdl.run.palette import BLUE, ORANGE, line_style

Lines = list[dict[str, Any]]  # as in metrics.jsonl
MOST_LABELS = 20  # classes up to which a matrix shows their names and shares
MOST_COLUMNS = 6  # columns of a series that are drawn
LONGEST_LAYER = 33  # characters to which the path of a layer on an axis is cut
LONGEST_CLASS = 24  # characters to which a class's name on an axis is cut


def confusion_matrix(values: np.ndarray, title: str, path: Path, names: Sequence[str] = ()) -> None:
    """Draws a confusion matrix.

    Args:
      values: [C, C], shares of the true classes. Rows are true classes, columns predicted ones.
      title: title of the picture.
      path: path of the PNG.
      names: names of the C classes. If there are not C of them, the axes show numbers.
    """
    classes = len(values)
    labels = [class_label(name) for name in names]
    if len(labels) != classes or classes > MOST_LABELS:
        labels = []
    room = 0.075 * max(map(len, labels), default=0)  # inches for labels at the left and bottom
    side = min(max(4.0, 0.55 * classes + 1.5), 14.0)
    inner = side - 1.0
    width, height = side + 0.9 + room, side + room
    figure = new_figure(figsize=(width, height))
    left, bottom = 0.65 + room, 0.6 + room
    axes = figure.add_axes((left / width, bottom / height, inner / width, inner / height))
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    bar = figure.add_axes(
        ((left + inner + 0.15) / width, bottom / height, 0.2 / width, inner / height)
    )
    figure.colorbar(image, cax=bar, label="share of the true class")
    axes.set_title(plain_label(title))
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if classes <= MOST_LABELS:
        axes.set_xticks(range(classes), labels or None)
        axes.set_yticks(range(classes), labels or None)
        is_long = max(map(len, labels), default=0) > 2
        axes.tick_params(axis="x", labelrotation=90 if is_long else 0)
        for (row, column), value in np.ndenumerate(values):
            if value >= 0.005:
                color = "white" if value > 0.5 else "black"
                text = f"{value:.2f}".lstrip("0") if value < 1 else "1"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    save_figure(figure, path)


def boundary(
    probability: Callable[[np.ndarray], np.ndarray],
    split: dict[str, np.ndarray],
    names: tuple[str, ...],
    classes: tuple[str, ...],
    path: Path,
) -> None:
    """Draws the probabilities and the decision boundary of a binary classifier of two features.

    Args:
      probability: function from features, float32 [N, 2], to probabilities of class 1, [N].
      split: examples to draw, `x` [N, 2] and `y` [N], which is 0 or 1.
      names: names of the two features.
      classes: names of the two classes.
      path: path of the PNG.
    """
    x, y = split["x"], split["y"]
    margin = 0.15 * (x.max(0) - x.min(0))
    sides = [
        np.linspace(a, b, 120) for a, b in zip(x.min(0) - margin, x.max(0) + margin, strict=True)
    ]
    grid = np.stack(np.meshgrid(*sides), -1)  # [120, 120, 2]
    probabilities = probability(grid.reshape(-1, 2).astype(np.float32)).reshape(grid.shape[:2])
    figure = new_figure(figsize=(5.4, 4.5))
    # A fixed layout: measuring the labels takes as long as drawing.
    axes = figure.add_axes((0.14, 0.19, 0.66, 0.73))
    levels = np.linspace(0, 1, 11)
    contours = axes.contourf(*sides, probabilities, levels=levels, cmap="RdBu", alpha=0.6)
    bar = figure.add_axes((0.84, 0.19, 0.04, 0.73))
    figure.colorbar(contours, cax=bar, label=f"probability of {classes[1]}")
    axes.contour(*sides, probabilities, levels=[0.5], colors="black", linewidths=1.2)
    for label, (marker, color) in enumerate((("o", ORANGE), ("^", BLUE))):
        horizontal, vertical = x[y == label].T
        style = {"marker": marker, "edgecolors": "white", "label": classes[label]}
        axes.scatter(horizontal, vertical, 28, color, **style)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    figure.legend(loc="upper center", ncols=2, frameon=False)
    text = "Points: examples of the split. Black line: decision boundary, probability 0.5."
    figure.text(0.03, 0.025, text, fontsize="small", color="0.3")
    save_figure(figure, path)


def attention(weights: np.ndarray, source: list[str], target: list[str], path: Path) -> None:
    """Draws attention weights of a decoder, target tokens as rows and source tokens as columns.

    A space is shown as a box, and a character that the font lacks by its code.

    Args:
      weights: [T, S] or larger. Entries beyond the tokens are padding, and not drawn.
      source: S source tokens.
      target: T target tokens.
      path: path of the PNG.
    """
    size = (0.32 * len(source) + 2.2, 0.28 * len(target) + 2.0)
    figure = new_figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(np.asarray(weights)[: len(target), : len(source)], cmap="Greys", vmin=0, vmax=1)
    columns, rows = ([_legible(token) for token in side] for side in (source, target))
    axes.set_xticks(range(len(source)), columns, rotation=90, fontsize=8)
    axes.set_yticks(range(len(target)), rows, fontsize=8)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("source")
    axes.set_ylabel("target")
    save_figure(figure, path)


def series(
    windows: Sequence[dict[str, tuple[int, np.ndarray]]],
    columns: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Draws lines over time, one picture for each window and column.

    Args:
      windows: for each window, its lines by label: the position of the first value, and the values
        [T, C]. All windows have the same labels. NaN leaves a gap in a line.
      columns: names of the C columns. Those beyond MOST_COLUMNS are not drawn.
      title: title of the figure.
      path: path of the PNG.
    """
    columns = columns[:MOST_COLUMNS]
    size = (4.2 * len(windows) + 0.6, 1.9 * len(columns) + 1.1)
    figure = new_figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(columns), len(windows), sharex="col", sharey="row", squeeze=False)
    styles = ("0.75", "-", 3.0), ("black", "-", 1.2), (ORANGE, "--", 1.2)
    for (row, column), axes in np.ndenumerate(grid):
        lines = zip(windows[column].items(), styles, strict=False)
        for (label, (first, values)), (color, style, width) in lines:
            positions = first + np.arange(len(values))
            axes.plot(positions, values[:, row], style, color=color, linewidth=width, label=label)
        if column == 0:
            axes.set_ylabel(class_label(columns[row]))
        if row == len(columns) - 1:
            axes.set_xlabel("position")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.suptitle(plain_label(title), fontsize="medium")
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    save_figure(figure, path)


def profiles(
    lines: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    thresholds: np.ndarray,
    label: str,
    path: Path,
) -> None:
    """Draws performance profiles: the fraction of runs above each threshold, with a band.

    Args:
      lines: by the name of a group of runs, its profile and both ends of the band, [T] each.
      thresholds: thresholds [T], in ascending order.
      label: name of the metric.
      path: path of the PNG.
    """
    figure = new_figure(figsize=(6.0, 3.6 + 0.2 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, (profile, low, high)) in enumerate(lines.items()):
        style = line_style(number)
        text = word_label(printable(shortened(name)))
        width = 1.4 + 0.7 * min(len(lines) - 1 - number, 3)  # equal profiles show beside each other
        axes.plot(thresholds, profile, linewidth=width, label=text, drawstyle="steps-post", **style)
        axes.fill_between(
            thresholds, low, high, step="post", color=style["color"], alpha=0.15, linewidth=0
        )
    axes.set_xlabel(plain_label(label.replace("_", " ")))
    axes.set_ylabel("fraction of runs above")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", fontsize="small", frameon=False)
    save_figure(figure, path)


@contextlib.contextmanager
def no_backend() -> Iterator[None]:
    """Context around each import of matplotlib, in which MPLBACKEND is not set.

    Matplotlib reads it at its first import. It may name a notebook's backend that is not installed
    here. Figures are drawn by Agg.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


def new_figure(**options: Any) -> Any:
    """Creates a `matplotlib.figure.Figure`, which Agg draws.

    Args:
      **options: arguments of the figure.
    """
    with no_backend():
        from matplotlib.figure import Figure
    return Figure(**options)


def word_label(text: str) -> str:
    """Returns words as a label in characters that matplotlib's own font has."""
    return " ".join(map(_legible, text.split(" ")))


def class_label(name: str) -> str:
    """Returns the name of a class or a column as a short label."""
    return word_label(shortened(name, LONGEST_CLASS))


def layer_label(path: str) -> str:
    """Returns the path of a layer as a label; a long one is cut at its front, as its end differs.

    >>> layer_label("decoder/blocks_0/attention/attention/drop")
    '…locks_0/attention/attention/drop'
    """
    cut = path if len(path) <= LONGEST_LAYER else f"…{path[1 - LONGEST_LAYER :]}"
    return word_label(cut)


def plain_label(text: str) -> str:
    """Returns a name as a label that is short and has no formula and no control character."""
    return printable(shortened(text)).replace("$", r"\$")


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure as a PNG of 110 dots per inch, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="png", dpi=110)


def _legible(token: str) -> str:
    """Returns a token as a label in characters that matplotlib's own font has."""
    with no_backend():
        from matplotlib import font_manager

    characters = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()

    def escape(character: str) -> str:
        if ord(character) in characters and character.isprintable() and character != " ":
            return r"\$" if character == "$" else character  # a bare dollar begins a formula
        return "\N{OPEN BOX}" if character == " " else character.encode("unicode_escape").decode()

    return "".join(map(escape, token)).replace("\\n", "\N{RETURN SYMBOL}")
