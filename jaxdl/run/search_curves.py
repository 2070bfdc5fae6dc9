"""Picture of a search: the curves of all that was tried, where each stopped, and the winner."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl.run.curves import LARGEST, LETTER, PANEL
from jaxdl.run.palette import BLUE, ORANGE
from jaxdl.run.plots import new_figure, plain_label, save_figure
from jaxdl.run.scales import is_steep, log_scale

PALE, STRONG, RUNG = "0.72", BLUE, ORANGE
MOST_PANELS = 6  # of flags that copies changed
LETTERS = int(1.6 * PANEL[0] / LETTER)  # of a line of the caption
WIDE = 20  # ratio of the last to the first step above which the axis is logarithmic


class Tried(NamedTuple):
    """A trial of a search.

    Attributes:
      points: step and value of each evaluation; the value is None if it is not finite.
      born: step at which it was copied from its parent; 0 for a trial from the beginning.
      end: the step that it came to.
      flags: values of the flags that copies change.
      parent: number of its parent among the trials; None for a trial from the beginning.
    """

    points: Sequence[tuple[int, float | None]]
    born: int
    end: int
    flags: dict[str, float]
    parent: int | None


def search_curves(
    trials: Sequence[Tried],
    winners: Sequence[int],
    rungs: Sequence[int],
    metric: str,
    largest: bool,
    path: Path,
) -> None:
    """Draws the selection metric of all trials over steps, and below it the flags of copies.

    All trials are pale, with a dot at their last evaluation. The winner is strong, with
    the trials that it descends from. Dotted lines mark the steps at which trials paused.

    Args:
      trials: the trials; a parent comes before its copies.
      winners: numbers of the winner's trials, one for each seed; empty if there is none yet.
      rungs: steps at which trials paused.
      metric: name of the metric.
      largest: whether its greatest value is the best.
      path: path of the PNG.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.flags))[:MOST_PANELS]
    height = PANEL[1] + 0.55 * PANEL[1] * len(names)
    figure = new_figure(figsize=(1.6 * PANEL[0], height), layout="constrained")
    ratios = [1.0, *[0.55] * len(names)]
    panels = figure.subplots(
        1 + len(names), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios}
    )[:, 0]
    line = _lineage(trials, winners)
    _draw_metric(panels[0], trials, line)
    panels[0].set_ylabel(plain_label(metric.replace("_", " ")))
    for axes, name in zip(panels[1:], names, strict=True):
        _draw_flag(axes, trials, line, name)
    steps = [step for trial in trials for step, _ in trial.points] or [1]
    for axes in panels:
        for rung in rungs:
            axes.axvline(rung, color=RUNG, linestyle=":", linewidth=0.9, alpha=0.7, zorder=0)
        if not names and min(steps) > 0 and max(steps) > WIDE * min(steps):
            log_scale(axes, "x")
        axes.grid(alpha=0.2)
    panels[-1].set_xlabel("step")
    _legend(panels[0], len(trials), bool(line), bool(rungs))
    text = textwrap.wrap(_caption(metric, largest, bool(line), bool(names)), LETTERS)
    figure.supxlabel("\n".join(text), fontsize="small", color="0.3", x=0.02, ha="left")
    save_figure(figure, path)


def _caption(metric: str, largest: bool, has_winner: bool, has_flags: bool) -> str:
    """Returns the caption: which lines there are, and which direction of the metric is better."""
    better = "higher" if largest else "lower"
    text = f"Lines: {plain_label(metric.replace('_', ' '))} of a trial; {better} is better. "
    text += "Gray: all trials, each up to its last evaluation, the dot."
    if has_winner:
        text += " Blue: the winner, the setting with the best value (its mean over seeds) among "
        text += "the finished trials"
        text += ", with the trials that it was copied from." if has_flags else "."
    return text + " Panels below: hyperparameters that copies change." * has_flags


def _lineage(trials: Sequence[Tried], winners: Sequence[int]) -> set[int]:
    """Returns the numbers of the winner's trials and of those that they descend from."""
    line: set[int] = set()
    for number in winners:
        above: int | None = number
        while above is not None and above not in line:
            line.add(above)
            above = trials[above].parent
    return line


def _draw_metric(axes: Any, trials: Sequence[Tried], line: set[int]) -> None:
    """Draws the curves; a copy's begins at its parent's value, where it was copied."""
    values = []
    for number, trial in enumerate(trials):
        points = [
            (step, value)
            for step, value in trial.points
            if value is not None and abs(value) < LARGEST and step >= trial.born
        ]
        # The winner's line ends where its copy begins to differ from it.
        ends = [one.born for n, one in enumerate(trials) if n in line and one.parent == number]
        strong = [p for p in points if not ends or p[0] <= min(ends)] if number in line else []
        values += [value for _, value in points]
        for shown, color, width in ((points, PALE, 0.9), (strong, STRONG, 2.2)):
            if shown:
                style = {"color": color, "zorder": 2 + width}
                axes.plot(*zip(*shown, strict=True), linewidth=width, **style)
                axes.plot(*shown[-1], marker="o", markersize=3.5 * width**0.5, **style)
    if is_steep(values):
        log_scale(axes, "y")


def _draw_flag(axes: Any, trials: Sequence[Tried], line: set[int], name: str) -> None:
    """Draws the value of a flag over the steps of each trial, joined to its parent's."""
    values = []
    for number, trial in enumerate(trials):
        value = trial.flags.get(name, math.nan)
        if not abs(value) < LARGEST:
            continue
        values.append(value)
        steps, heights = [trial.born, trial.end], [value, value]
        if trial.parent is not None:
            above = trials[trial.parent].flags.get(name, value)
            steps, heights = [trial.born, *steps], [above, *heights]
        ends = [one.born for n, one in enumerate(trials) if n in line and one.parent == number]
        axes.plot(steps, heights, color=PALE, linewidth=0.9)
        if number in line:
            steps[-1] = min([trial.end, *ends])
            axes.plot(steps, heights, color=STRONG, linewidth=2.2, zorder=3)
    if values and min(values) > 0 and max(values) >= 10 * min(values):
        log_scale(axes, "y")
    axes.set_ylabel(plain_label(name.replace("_", " ")))


def _legend(axes: Any, count: int, has_winner: bool, has_rungs: bool) -> None:
    """Draws the legend: the trials, the winner and the rungs."""
    axes.plot([], [], color=PALE, marker="o", markersize=3.5, label=f"{count} trials")
    if has_winner:
        axes.plot([], [], color=STRONG, linewidth=2.2, marker="o", markersize=5, label="winner")
    if has_rungs:
        axes.plot([], [], color=RUNG, linestyle=":", label="trials pause")
    axes.legend(fontsize="small", frameon=False, loc="best")
