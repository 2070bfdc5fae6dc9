"""Pictures of `jaxdl analyze`: curves and grids with a caption that says what is shown."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.analysis.calibration import Reliability
from jaxdl.run.palette import BLUE, COLORS, ORANGE, SKY, line_style
from jaxdl.run.plots import class_label, layer_label, new_figure, save_figure

SCORES = {"probability": "1 - probability", "mahalanobis": "squared Mahalanobis distance"}


def finish(figure: Any, caption: str, path: Path, per_inch: int = 15) -> None:
    """Writes a figure with its caption below.

    Args:
      figure: the figure, with the layout `constrained`.
      caption: sentences that say what is shown.
      path: path of the PNG.
      per_inch: letters of the caption per inch of the figure's width.
    """
    lines = textwrap.wrap(caption, int(figure.get_figwidth() * per_inch))
    figure.supxlabel("\n".join(lines), fontsize=8, x=0.02, ha="left")
    save_figure(figure, path)


def show_image(axes: Any, image: np.ndarray) -> None:
    """Draws an image of 0 to 255, [H, W, C] with one or three channels."""
    image = image[..., 0] if image.shape[-1] == 1 else image
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)


def _shares(
    values: np.ndarray, size: tuple[float, float], label: str, digits: int
) -> tuple[Any, Any]:
    """Figure and axes with a table of numbers from 0 to 1, [N, M], as colours and as text."""
    figure = new_figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap="cividis", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label=label)
    for (row, column), value in np.ndenumerate(values):
        text, color = f"{value:.{digits}f}", "black" if value > 0.5 else "white"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7)
    return figure, axes


def reliability(tables: Mapping[str, Reliability], path: Path) -> None:
    """Draws reliability diagrams beside each other.

    Args:
      tables: reliability by title.
      path: path of the PNG.
    """
    figure = new_figure(figsize=(3.4 * len(tables) + 0.4, 4.4), layout="constrained")
    axes = figure.subplots(2, len(tables), squeeze=False, height_ratios=(3, 1), sharex=True)
    for column, (title, table) in enumerate(tables.items()):
        upper, lower = axes[:, column]
        upper.plot((0, 1), (0, 1), color="black", linestyle=":", linewidth=1, label="ideal")
        known = table.counts > 0
        upper.plot(
            *(table.confidence[known], table.accuracy[known]),
            color=BLUE,
            marker="o",
            markersize=4,
            label="model",
        )
        upper.set_title(f"{title}, ECE {table.error():.4f}", fontsize=9)
        upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy" if column == 0 else "")
        width = np.diff(table.edges)
        lower.bar(table.edges[:-1], table.counts, width, align="edge", color=SKY, edgecolor="white")
        lower.set_yscale("log")
        lower.set(xlabel="confidence", ylabel="examples" if column == 0 else "")
    axes[0, 0].legend(frameon=False, fontsize=8)
    caption = (
        "Above: accuracy of test examples against the confidence of their prediction, in bins of "
        "confidence; below the dotted line the model is too confident. Below: examples in each bin."
    )
    finish(figure, caption, path)


def set_sizes(sizes: Mapping[str, np.ndarray], path: Path) -> None:
    """Draws how many classes conformal sets have.

    Args:
      sizes: number of classes in the set of each example, int [N], by the kind of the sets.
      path: path of the PNG.
    """
    figure = new_figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    most = max(int(size.max()) for size in sizes.values())
    for number, (name, size) in enumerate(sizes.items()):
        share = np.bincount(size, minlength=most + 1) / len(size)
        places = np.arange(most + 1) + 0.4 * number - 0.2
        axes.bar(places, share, 0.38, color=COLORS[number], label=name)
    axes.set(xlabel="classes in the set", ylabel="share of test examples")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8)
    caption = (
        "Sizes of conformal sets, which contain the true class in nine of ten cases. Larger sets "
        "are of examples that the model is less sure of; an empty set is like no class."
    )
    finish(figure, caption, path)


def intervals(predictions: np.ndarray, targets: np.ndarray, half: float, path: Path) -> None:
    """Draws predictions of numbers with their conformal intervals.

    Args:
      predictions: predicted numbers, [N].
      targets: true numbers, [N].
      half: half the width of the intervals.
      path: path of the PNG.
    """
    figure = new_figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(predictions)
    x, y = predictions[order], targets[order]
    axes.fill_between(x, x - half, x + half, color=SKY, alpha=0.4, label="interval")
    axes.plot(x, x, color=BLUE, label="prediction")
    outside = np.abs(y - x) > half
    axes.plot(x[~outside], y[~outside], ".", color="black", markersize=4, label="inside")
    axes.plot(x[outside], y[outside], "x", color=ORANGE, markersize=5, label="outside")
    axes.set(xlabel="predicted number", ylabel="true number")
    axes.legend(frameon=False, fontsize=8)
    caption = "Test examples and the conformal interval that contains nine of ten of them."
    finish(figure, caption, path)


def score_histograms(
    inside: Mapping[str, np.ndarray],
    outside: Mapping[str, Mapping[str, np.ndarray]],
    path: Path,
) -> None:
    """Draws the distributions of scores of test examples and of foreign ones.

    Args:
      inside: scores of test examples, [N], by the name of the score.
      outside: scores of foreign examples by their kind and the name of the score.
      path: path of the PNG.
    """
    figure = new_figure(figsize=(2.9 * len(inside) + 0.4, 3.2), layout="constrained")
    grid = figure.subplots(1, len(inside), squeeze=False)[0]
    for axes, (score, values) in zip(grid, inside.items(), strict=True):
        groups = {"test split": values} | {name: s[score] for name, s in outside.items()}
        for number, (name, found) in enumerate(groups.items()):
            ranks = (np.arange(len(found)) + 1) / len(found)
            axes.plot(np.sort(found), ranks, label=name, **line_style(number))
        if score == "mahalanobis":
            axes.set_xscale("symlog")
        axes.set(
            xlabel=SCORES.get(score, score),
            ylabel="share below" if score == next(iter(inside)) else "",
        )
    grid[0].legend(frameon=False, fontsize=8)
    caption = (
        "Cumulative distributions of scores that are larger for examples unlike the data. A line "
        "far to the right of that of the test split is of examples that the score tells apart."
    )
    finish(figure, caption, path)


def attack_curves(found: Mapping[str, Mapping[str, Any]], clean: float, path: Path) -> None:
    """Draws accuracy against the strength of attacks; those in the 2-norm on the right.

    Args:
      found: `epsilon` and `accuracy` of each attack.
      clean: accuracy without an attack.
      path: path of the PNG.
    """
    figure = new_figure(figsize=(7, 3.4), layout="constrained")
    sides = figure.subplots(1, 2, sharey=True)
    for number, (name, curve) in enumerate(found.items()):
        axes = sides[int("2-norm" in name)]
        style = {"marker": "o", "markersize": 4, "label": name, **line_style(number)}
        axes.plot(curve["epsilon"], curve["accuracy"], **style)
    for axes, label in zip(sides, ("of a pixel, of 255", "in the 2-norm"), strict=True):
        axes.axhline(clean, color="black", linestyle=":", linewidth=1, label="no attack")
        axes.set_xscale("log", base=2)
        axes.set(xlabel=f"largest change {label}", ylim=(-0.02, 1.02))
        axes.legend(frameon=False, fontsize=8)
    sides[0].set_ylabel("accuracy")
    caption = (
        "Accuracy under attack: the share of all test images that are still classified right after "
        "an attack has changed them. The square attack sees only the outputs; where it beats PGD, "
        "the gradients are of little use."
    )
    finish(figure, caption, path)


def corruption_table(
    table: Mapping[str, Mapping[str, list[float]]], clean: float, path: Path
) -> None:
    """Draws the accuracy on corrupted images, a row for each kind and a column for each severity.

    Args:
      table: `accuracy` of the five severities of each kind.
      clean: accuracy without corruption.
      path: path of the PNG.
    """
    values = np.array([found["accuracy"] for found in table.values()])
    figure, axes = _shares(values, (5.2, 0.3 * len(values) + 1.6), "accuracy", 2)
    axes.set_aspect("auto")
    axes.set_yticks(range(len(values)), [kind.replace("_", " ") for kind in table], fontsize=8)
    axes.set_xticks(range(5), range(1, 6))
    axes.set_xlabel("severity")
    caption = f"Accuracy on corrupted test images; {clean:.3f} without corruption."
    finish(figure, caption, path)


def similarity(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], other: str, path: Path
) -> None:
    """Draws the similarity of layers.

    Args:
      values: similarities [N, M].
      rows: layers of the model, N.
      columns: layers of the other model, M.
      other: name of the other model.
      path: path of the PNG.
    """
    size = (0.45 * len(columns) + 2.6, 0.45 * len(rows) + 2.0)
    figure, axes = _shares(values, size, "CKA", 2)
    axes.set_yticks(range(len(rows)), [layer_label(name) for name in rows], fontsize=7)
    axes.set_xticks(range(len(columns)), [layer_label(n) for n in columns], rotation=90, fontsize=7)
    caption = f"Linear CKA of the layers (rows) with those of {class_label(other)} (columns)."
    finish(figure, caption, path)


def several_lines(text: str) -> str:
    """Label of several lines, each of which is cut."""
    return "\n".join(map(class_label, text.split("\n")))


def labelled_images(images: np.ndarray, labels: Sequence[str], caption: str, path: Path) -> None:
    """Draws images with a label above each.

    Args:
      images: images of 0 to 255, [N, H, W, C].
      labels: their labels, N.
      caption: sentences that say what is shown.
      path: path of the PNG.
    """
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    width = max(1.1 * columns, 4)
    height = min(width / columns, 1.4) * images.shape[1] / images.shape[2] + 0.32  # with its label
    figure = new_figure(
        figsize=(width, rows * height + (0.4 if columns > 4 else 0.55)), layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, label in zip(grid, images, labels, strict=False):
        show_image(axes, image)
        axes.set_title(several_lines(label), fontsize=7)
    finish(figure, caption, path)
