"""Scales of the axes of pictures: linear or logarithmic, and the ticks of logarithmic ones."""

from typing import Any

import numpy as np

STEEP = 20  # ratio of maximum to median above which the axis is logarithmic
DECADES = 1000  # ratio of maximum to minimum above which it is, too


def is_steep(values: list[float]) -> bool:
    """Returns True for positive values that a linear axis would flatten."""
    if not values or min(values) <= 0:
        return False
    many_decades = max(values) > DECADES * min(values)
    return many_decades or max(values) > STEEP * float(np.median(values))


def is_wide(values: list[float]) -> bool:
    """Returns True for positive values of a range that a steep metric's axis suits as well."""
    return bool(values) and min(values) > 0 and max(values) > STEEP * min(values)


def set_scales(panels: list[tuple[Any, list[float], str]]) -> None:
    """Makes the axes of steep metrics logarithmic, and with them those of as wide a range.

    So metrics of the same range have the same scale. A learning rate has a linear axis: it ends
    near 0.

    Args:
      panels: axes, values and name of each metric.
    """
    others = [values for _, values, name in panels if name != "learning_rate"]
    any_steep = any(map(is_steep, others))
    for axes, values, name in panels:
        if any_steep and is_wide(values) and name != "learning_rate":
            log_scale(axes, "y")
        else:
            axes.ticklabel_format(axis="y", scilimits=(-2, 4))


def log_scale(axes: Any, side: str) -> None:
    """Makes an axis logarithmic, with ticks at 1, 2 and 5 times powers of ten.

    All of them have labels where less than two decades are shown, else those of the powers.

    Args:
      axes: axes with everything drawn, as their limits decide.
      side: x or y.
    """
    getattr(axes, f"set_{side}scale")("log", subs=(2, 5))  # ticks take most of a picture's time
    low, high = getattr(axes, f"get_{side}lim")()
    if high < 100 * low:
        axis = getattr(axes, f"{side}axis")
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(lambda value, _: f"{value:g}")
