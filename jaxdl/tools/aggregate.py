"""Interquartile means and performance profiles of groups of runs, for `jaxdl compare`.

Groups are arrays of the values of their runs, one for each environment. If there are several
environments, values are scaled to 0 to 1 in each.
"""

from pathlib import Path

import numpy as np

from jaxdl.analysis import scores, statistics
from jaxdl.analysis.comparison import interval_text
from jaxdl.console import decimals, show
from jaxdl.errors import UserError
from jaxdl.run import plots

Strata = dict[str, list[np.ndarray]]  # by the group's name, values [n] in each environment
THRESHOLDS = 200  # points of a performance profile
SCALED = ", environments scaled to 0 to 1"


def show_interquartile_means(groups: Strata) -> None:
    """Prints the interquartile mean of each group and its 95 % stratified bootstrap interval.

    Args:
      groups: the groups, which have the same environments.
    """
    groups, scale = _scaled(groups)
    rows = []
    for name, strata in groups.items():
        value = float(scores.pooled_interquartile_mean(*strata))
        ends = statistics.bootstrap_interval(strata, scores.pooled_interquartile_mean)
        width = float(ends[1] - ends[0])
        rows.append((name, decimals(value, width), interval_text(ends, width)))
    print()
    show(("", f"interquartile mean{scale}", "95 % interval (stratified bootstrap)"), rows)


def draw_profiles(groups: Strata, metric: str, path: Path) -> None:
    """Draws the performance profile of each group with a 95 % band.

    Args:
      groups: the groups, which have the same environments.
      metric: name of the metric.
      path: path of the PNG.

    Raises:
      UserError: it cannot be written.
    """
    groups, scale = _scaled(groups)
    flat = np.concatenate([values for strata in groups.values() for values in strata])
    room = 0.02 * (np.ptp(flat) or 1.0)
    thresholds = np.linspace(flat.min() - room, flat.max() + room, THRESHOLDS)
    lines = {name: scores.profile_with_band(strata, thresholds) for name, strata in groups.items()}
    try:
        plots.profiles(lines, thresholds, f"{metric}{scale}", path)
    except OSError as error:
        raise UserError(f"--output={path} cannot be written: {error.strerror}") from error


def _scaled(groups: Strata) -> tuple[Strata, str]:
    """Scales several environments; returns a phrase that says so."""
    if len(next(iter(groups.values()))) < 2:
        return groups, ""
    return dict(zip(groups, scores.normalized([*groups.values()]), strict=True)), SCALED
