"""Pictures of the curvature and of the loss around the trained parameters."""

from pathlib import Path

import numpy as np

from jaxdl.analysis.hessian import Density
from jaxdl.run.palette import BLUE, ORANGE, SKY
from jaxdl.run.plots import new_figure
from jaxdl.tools.analysis_pictures import finish


def density(found: Density, path: Path) -> None:
    """Draws the spectral density of a Hessian, on a logarithmic scale.

    Args:
      found: the density.
      path: path of the PNG.
    """
    low, high = found.values[0], found.values[-1]
    width = max((high - low) / 200, 1e-9)
    grid = np.linspace(low - 8 * width, high + 8 * width, 1000)
    figure = new_figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    values = np.maximum(found.smooth(grid, width), 1e-12)
    axes.fill_between(grid, values, 1e-12, color=SKY)
    axes.plot(grid, values, color=BLUE, linewidth=1)
    axes.set_yscale("log")
    axes.set(xlabel="eigenvalue", ylabel="density", ylim=(1e-8, 2 * values.max()))
    caption = (
        "Density of the eigenvalues of the Hessian of the training loss. Most are near 0; those "
        "far to the right are directions in which the loss rises steeply, those to the left of 0 "
        "directions in which it falls."
    )
    finish(figure, caption, path)


def plane(axis: np.ndarray, losses: np.ndarray, path: Path) -> None:
    """Draws the loss on a plane through the trained parameters.

    Args:
      axis: coordinates, [N].
      losses: losses [N, N].
      path: path of the PNG.
    """
    figure = new_figure(figsize=(4.8, 4.6), layout="constrained")
    axes = figure.subplots()
    heights = np.log10(np.maximum(losses, 1e-12))
    image = axes.contourf(axis, axis, heights.T, levels=20, cmap="cividis")
    axes.contour(axis, axis, heights.T, levels=20, colors="black", linewidths=0.3)
    axes.plot(0, 0, "*", color=ORANGE, markersize=12)
    figure.colorbar(image, ax=axes, label="log10 of the training loss")
    axes.set(xlabel="first direction", ylabel="second direction", aspect="equal")
    caption = (
        "Loss around the trained parameters (star) along two random directions, whose filters have "
        "the norms of the model's own."
    )
    finish(figure, caption, path)
