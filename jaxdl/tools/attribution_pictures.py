"""Pictures of attribution: maps beside images, bars of columns and of tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxdl.run.palette import BLUE, COLORS, ORANGE, line_style
from jaxdl.run.plots import class_label, layer_label, new_figure
from jaxdl.text.vocabulary import UNKNOWN_TEXT
from jaxdl.tools.analysis_pictures import finish, several_lines, show_image

SIGNED = "PuOr_r"  # orange for, violet against; the colour-blind can tell them apart
MOST_BARS = 12


def maps(
    images: np.ndarray, found: Mapping[str, np.ndarray], titles: Sequence[str], path: Path
) -> None:
    """Draws images and, in a column for each method, their attribution maps.

    Args:
      images: images of 0 to 255, [B, H, W, C].
      found: maps [B, H, W] by method.
      titles: text beside each image that is drawn.
      path: path of the PNG.
    """
    columns = 1 + len(found)
    size = (1.05 * columns + 0.5, 1.05 * len(titles) + 1.2)
    figure = new_figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(titles), columns, squeeze=False)
    for row, title in enumerate(titles):
        first, *others = grid[row]
        show_image(first, images[row])
        first.set_ylabel(several_lines(title), fontsize=7)
        for axes, (name, values) in zip(others, found.items(), strict=True):
            limit = np.max(np.abs(values[row])) or 1
            axes.imshow(values[row], cmap=SIGNED, vmin=-limit, vmax=limit)
            if row == 0:
                axes.set_title(name.replace(" ", "\n", 1), fontsize=7)
        for axes in grid[row]:
            axes.set(xticks=[], yticks=[])
    caption = (
        "Test images with the predicted class, and what speaks for it (orange) or against it "
        "(violet) by each method. Each map is scaled by its own largest value."
    )
    finish(figure, caption, path)


def columns(found: Mapping[str, np.ndarray], names: Sequence[str], path: Path) -> None:
    """Draws the mean absolute attribution of the columns of a table, by method.

    Args:
      found: attributions [B, P] by method.
      names: names of the columns.
      path: path of the PNG.
    """
    means = {name: np.mean(np.abs(values), axis=0) for name, values in found.items()}
    scaled = {name: x / (x.sum() or 1) for name, x in means.items()}
    count = len(next(iter(scaled.values())))
    labels = list(names) if len(names) == count else [f"column {n}" for n in range(count)]
    order = np.argsort(-np.mean(list(scaled.values()), axis=0))[:MOST_BARS]
    figure = new_figure(figsize=(6, 0.35 * len(order) + 1.8), layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(scaled.items()):
        places = np.arange(len(order)) + 0.12 * (number - (len(scaled) - 1) / 2)
        axes.plot(values[order], places, "osD^vP*"[number % 7], color=COLORS[number], label=name)
    axes.set_yticks(range(len(order)), [class_label(labels[n]) for n in order], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.grid(axis="y", alpha=0.3)
    axes.set_xlabel("share of the absolute attribution")
    axes.legend(frameon=False, fontsize=7)
    caption = "Mean over test examples of how much each column contributes, by method."
    finish(figure, caption, path)


def words(
    values: np.ndarray, words: Sequence[Sequence[str]], titles: Sequence[str], path: Path
) -> None:
    """Draws the tokens of texts that contribute most.

    Args:
      values: attributions of the tokens, [B, T].
      words: the tokens of each text that is drawn, without padding.
      titles: title of each.
      path: path of the PNG.
    """
    figure = new_figure(figsize=(2.6 * len(words), 3.6), layout="constrained")
    grid = figure.subplots(1, len(words), squeeze=False)[0]
    for axes, row, text, title in zip(grid, values, words, titles, strict=False):
        order = np.argsort(-np.abs(row[: len(text)]))[:MOST_BARS]
        axes.barh(range(len(order)), row[order], color=np.where(row[order] > 0, ORANGE, BLUE))
        labels = [f"{class_label(text[n])} ({n + 1})" for n in order]
        axes.set_yticks(range(len(order)), labels, fontsize=7)
        axes.invert_yaxis()
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_title(several_lines(title), fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
    caption = (
        "Test texts with the predicted class, and the tokens (with their positions) that speak "
        "most for it (orange) or against it (blue), by integrated gradients."
    )
    if any(UNKNOWN_TEXT in text for text in words):
        caption += f" {UNKNOWN_TEXT} is a word that the vocabulary does not have."
    finish(figure, caption, path)


def sanity(methods: Mapping[str, Sequence[float]], layers: Sequence[str], path: Path) -> None:
    """Draws how alike the maps of a trained model are to those of models with random layers.

    Args:
      methods: mean rank correlation of each stage, by method.
      layers: first random layer of each stage.
      path: path of the PNG.
    """
    figure = new_figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(methods.items()):
        style = {"marker": "o", "markersize": 3, "label": name, **line_style(number)}
        axes.plot(range(len(values)), values, **style)
    axes.set_xticks(range(len(layers)), [layer_label(n) for n in layers], fontsize=7, rotation=20)
    axes.set(xlabel="first random layer", ylabel="rank correlation", ylim=(-0.6, 1.05))
    axes.axhline(0, color="black", linewidth=0.6)
    axes.legend(frameon=False, fontsize=7, ncols=2)
    caption = (
        "Rank correlation of absolute maps with those of the same model whose last layers have "
        "random weights. A method whose line stays high does not explain the weights."
    )
    finish(figure, caption, path)
