"""Pictures of runs: curves, matrices. Matplotlib's objects only, no global figure."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import files
from jaxdl.errors import printable, shortened

Lines = list[dict[str, Any]]  # as in metrics.jsonl
MOST_LABELS = 20  # classes of a matrix that are named and whose shares are written
LONGEST_CLASS = 24  # characters of a class's name on an axis


@contextlib.contextmanager
def no_backend() -> Iterator[None]:
    """Around each import of matplotlib, which reads MPLBACKEND at the first one.

    It is not obeyed: it may name a notebook's backend, which is not installed here. Figures are
    drawn by Agg.
    """
    named = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if named is not None:
            os.environ["MPLBACKEND"] = named


def new_figure(**options: Any) -> Any:
    """A `matplotlib.figure.Figure`, which Agg draws."""
    with no_backend():
        from matplotlib.figure import Figure
    return Figure(**options)


def matrix(values: np.ndarray, title: str, path: Path, names: Sequence[str] = ()) -> None:
    """Draws a confusion matrix [C, C]: rows are the true classes, columns the predicted ones.

    Args:
      values: shares of the true classes.
      title: of the picture.
      path: of the PNG.
      names: of the classes, C; another number of them: the axes have the classes' numbers.
    """
    classes = len(values)
    labels = [word_label(shortened(name, LONGEST_CLASS)) for name in names]
    if len(labels) != classes or classes > MOST_LABELS:
        labels = []
    room = 0.075 * max(map(len, labels), default=0)  # inches, beside and below
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
        axes.tick_params(axis="x", labelrotation=90 if labels else 0)
        for (row, column), value in np.ndenumerate(values):
            if value >= 0.005:
                color = "white" if value > 0.5 else "black"
                text = f"{value:.2f}".lstrip("0") if value < 1 else "1"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7)
    save_figure(figure, path)


def boundary(
    probability: Callable[[np.ndarray], np.ndarray],
    split: dict[str, np.ndarray],
    names: tuple[str, ...],
    classes: tuple[str, ...],
    path: Path,
) -> None:
    """Draws a classifier of two columns: shades of its probability, its boundary, the examples.

    Args:
      probability: of the second class, from float32 [N, 2] to [N].
      split: {"x": [N, 2], "y": [N]}, y 0 or 1.
      names: of the two columns.
      classes: of y.
      path: of the PNG.
    """
    x, y = split["x"], split["y"]
    margin = 0.15 * (x.max(0) - x.min(0))
    sides = [
        np.linspace(a, b, 120) for a, b in zip(x.min(0) - margin, x.max(0) + margin, strict=True)
    ]
    grid = np.stack(np.meshgrid(*sides), -1)  # [120, 120, 2]
    height = probability(grid.reshape(-1, 2).astype(np.float32)).reshape(grid.shape[:2])
    figure = new_figure(figsize=(5.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    shades = axes.contourf(*sides, height, levels=np.linspace(0, 1, 11), cmap="RdBu", alpha=0.6)
    figure.colorbar(shades, ax=axes, label=f"probability of {classes[1]}")
    axes.contour(*sides, height, levels=[0.5], colors="black", linewidths=1.2)
    for value, (marker, color) in enumerate((("o", "C3"), ("^", "C0"))):
        across, up = x[y == value].T
        axes.scatter(across, up, 28, color, marker=marker, edgecolors="white", label=classes[value])
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    save_figure(figure, path)


def attention(weights: np.ndarray, source: list[str], target: list[str], path: Path) -> None:
    """Draws where a decoder looks: a row for each target token, a column for each source token.

    A space is shown as a box, and what the font lacks by its code.

    Args:
      weights: [T, S] or larger; what is beyond the tokens is padding.
      source: tokens, S.
      target: tokens, T.
      path: of the PNG.
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
    axes.set_ylabel("each token of the target, and where it looks")
    save_figure(figure, path)


def _legible(token: str) -> str:
    """A token as a label that matplotlib's own font can write."""
    with no_backend():
        from matplotlib import font_manager

    known = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()

    def shown(character: str) -> str:
        if ord(character) in known and character.isprintable() and character != " ":
            return r"\$" if character == "$" else character  # which else would begin a formula
        return "\N{OPEN BOX}" if character == " " else character.encode("unicode_escape").decode()

    return "".join(map(shown, token)).replace("\\n", "\N{RETURN SYMBOL}")


def word_label(text: str) -> str:
    """Words as a label that matplotlib's own font can write."""
    return " ".join(map(_legible, text.split(" ")))


def plain_label(text: str) -> str:
    """A name as a label: short, with no formula and no control character in it."""
    return printable(shortened(text)).replace("$", r"\$")


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure as PNG at 110 dots per inch, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="png", dpi=110)
