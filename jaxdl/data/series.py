"""Time series: two integrated chaotic systems, and columns of a CSV file.

A series is cut into windows of T positions and the H positions after them. The windows are gathered
when a batch is made, not stored. A missing value is NaN.

Shapes: N points of a series with C columns, M windows.
"""

import csv
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxdl.data.batches import Dataset, Split, windows
from jaxdl.data.columns import positions, read_columns
from jaxdl.data.describe import describe
from jaxdl.errors import UserError, shortened

SMALLEST = 1e-4  # least unit of a correction, in standard deviations: float32 has 7 digits


@dataclasses.dataclass(frozen=True)
class Series:
    """A series with the names of its columns.

    Attributes:
      name: name of the data set.
      columns: names of the C columns.
      values: float64 [N, C], NaN where a value is missing.
      source: location of the data.
    """

    name: str
    columns: tuple[str, ...]
    values: np.ndarray
    source: str


def mackey_glass(points: int, washout: int = 1000) -> Series:
    """Chaotic blood-cell counts of Mackey and Glass (1977) with delay 17, sampled at step 1.

    x' = 0.2 y / (1 + y**10) - 0.1 x with y(t) = x(t - 17), from x = 1.2 before the start.
    Integrated by the classical Runge-Kutta method with step 0.1; the delayed value between two
    steps is that of the cubic through both values and slopes.

    Args:
      points: N.
      washout: number of points before these that are left out.
    """
    per_point = 10
    h, delay = 1 / per_point, 17 * per_point
    x = [1.2] * (delay + 1)
    slope = [0.0] * delay  # of the constant history

    def derivative(x: float, delayed: float) -> float:
        square = delayed * delayed  # products: the last bit of a power depends on the platform
        fourth = square * square
        return 0.2 * delayed / (1 + fourth * fourth * square) - 0.1 * x

    for n in range((washout + points - 1) * per_point):
        now, old, next_old = x[-1], x[n], x[n + 1]
        slope.append(derivative(now, old))
        between = old
        if n >= delay:  # after the constant history, where the slope jumps
            between = (old + next_old) / 2 + h * (slope[n] - slope[n + 1]) / 8
        b = derivative(now + h / 2 * slope[-1], between)
        c = derivative(now + h / 2 * b, between)
        d = derivative(now + h * c, next_old)
        x.append(now + h / 6 * (slope[-1] + 2 * b + 2 * c + d))
    values = np.asarray(x[delay + washout * per_point :: per_point])[:, None]
    source = "integrated Mackey-Glass equation, delay 17, step 1"
    return Series("mackey_glass", ("x",), values, source)


def lorenz(points: int, washout: int = 1000) -> Series:
    """Chaotic convection of Lorenz (1963) in three variables, sampled at step 0.02.

    x' = 10 (y - x), y' = x (28 - z) - y, z' = x y - 8/3 z, from (1, 1, 1). Integrated by the
    classical Runge-Kutta method with step 0.002.

    Args:
      points: N.
      washout: number of points before these that are left out.
    """
    per_point = 10
    h = 0.02 / per_point

    def derivative(x: float, y: float, z: float) -> tuple[float, float, float]:
        return 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z

    x = y = z = 1.0
    values = []
    for n in range((washout + points - 1) * per_point + 1):
        if n % per_point == 0:
            values.append((x, y, z))
        a = derivative(x, y, z)
        b = derivative(x + h / 2 * a[0], y + h / 2 * a[1], z + h / 2 * a[2])
        c = derivative(x + h / 2 * b[0], y + h / 2 * b[1], z + h / 2 * b[2])
        d = derivative(x + h * c[0], y + h * c[1], z + h * c[2])
        x += h / 6 * (a[0] + 2 * b[0] + 2 * c[0] + d[0])
        y += h / 6 * (a[1] + 2 * b[1] + 2 * c[1] + d[1])
        z += h / 6 * (a[2] + 2 * b[2] + 2 * c[2] + d[2])
    source = "integrated Lorenz equations, step 0.02"
    return Series("lorenz", ("x", "y", "z"), np.asarray(values[washout:]), source)


SYSTEMS: dict[str, Callable[..., Series]] = {"mackey_glass": mackey_glass, "lorenz": lorenz}


def load(name: str, points: int, columns: str = "") -> Series:
    """Loads a series by the name of its data set.

    Args:
      name: one of SYSTEMS, `embedded` for the first of them, or the path of a CSV file, which
        begins with / or ./.
      points: number of points N of an integrated system; not used for a file.
      columns: names of the columns to use, as in a line of a CSV file; empty: all.

    Raises:
      UserError: there is no such data set or column, or see `columns.read_columns`.
    """
    chosen = tuple(name.strip() for name in next(csv.reader([columns], skipinitialspace=True), []))
    if is_file(name):
        path = Path(name).expanduser()
        return Series("csv", *read_columns(path, chosen), f"file {path}")
    if name not in (*SYSTEMS, "embedded"):
        raise UserError(
            f"--dataset={shortened(name)}: choose {', '.join(SYSTEMS)}, embedded, or a CSV file, "
            "whose path begins with / or ./"
        )
    series = SYSTEMS.get(name, mackey_glass)(points)
    where = positions(series.columns, chosen, name)
    names = tuple(series.columns[n] for n in where)
    return dataclasses.replace(series, columns=names, values=series.values[:, where])


def is_file(name: str) -> bool:
    """Returns True if the name of a data set is a path.

    >>> is_file("./sales.csv"), is_file("lorenz")
    (True, False)
    """
    return name.startswith(("/", "~", "./", "../"))


def dataset(
    series: Series,
    *,
    length: int,
    horizon: int = 0,
    order: int = 2,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> Dataset:
    """Splits a series in the order of time, and cuts each part into overlapping windows.

    The targets of a window are the H positions after it, or its own positions if H is 0. All of
    them are in one part, and the first and the last of the H have a value in some column. The
    T positions before the targets may be in the part before.

    Args:
      series: the series.
      length: positions of a window, T.
      horizon: positions after a window, H; 0: the windows alone.
      order: number of coefficients p of a linear autoregression of each column.
      validation_fraction: fraction of the N points for validation.
      test_fraction: fraction of the N points for the test, the last ones.

    Returns:
      The data set, with splits {"x": float32 [M, T, C], "y": float32 [M, H, C]}, the latter if H is
      not 0. The constants of its description are those of the training part: `mean` and `std` [C];
      `linear` [p + 1, C], see `autoregression`, of the normalised columns; and `scale` [C], the
      root mean square of its errors.

    Raises:
      UserError: a part is too short for one window, or a column has no two different values in the
        training part.
    """
    points = len(series.values)
    held_out = [round(points * fraction) for fraction in (validation_fraction, test_fraction)]
    ends = [points - sum(held_out), points - held_out[1], points]
    array = series.values.astype(np.float32)
    splits = []
    for name, begin, end in zip(("training", "validation", "test"), [0, *ends], ends, strict=False):
        first = max(begin - length, 0) if horizon else begin  # of the windows
        starts = np.arange(first, max(end - length - horizon + 1, first))
        starts = starts[_usable(series.values, starts, length, horizon)]
        if not len(starts):
            raise _too_short(series, f"{max(end - begin, 0):,} points for {name}", length, horizon)
        split: Split = {"x": windows(array, starts, length)}
        if horizon:
            split["y"] = windows(array, starts + length, horizon)
        splits.append(split)
    spec = describe(
        splits[0],
        name=series.name,
        version="1",
        fingerprint=_fingerprint(series),
        source=series.source,
        columns=series.columns,
        constants=_constants(series, series.values[: ends[0]], order),
    )
    return Dataset(spec, *splits)


def _too_short(series: Series, part: str, length: int, horizon: int) -> UserError:
    flags = f"--length={length}" + (f", --horizon={horizon}" if horizon else "")
    return UserError(
        f"{series.name}: none of the {part} of {len(series.values):,} has {length + horizon} "
        f"positions ({flags}) with values at the targets: give a longer series, a shorter window, "
        "or other fractions"
    )


def _usable(values: np.ndarray, starts: np.ndarray, length: int, horizon: int) -> np.ndarray:
    """Windows with a value, and with one at the first and the last target: bool [M]."""
    present = np.isfinite(values).any(axis=1)
    count = np.concatenate([[0], np.cumsum(present)])
    usable = count[starts + length] > count[starts]
    if horizon:
        usable &= present[starts + length] & present[starts + length + horizon - 1]
    return usable


def autoregression(column: np.ndarray, order: int) -> tuple[np.ndarray, float]:
    """Linear autoregression by least squares, over all points with p known values before them.

    If there are fewer than 2 p + 2 such points, it is the last value itself.

    Args:
      column: values [N], NaN where a value is missing.
      order: number of coefficients, p.

    Returns:
      Coefficients [p + 1] of the last p values, the oldest first, and of 1; and the root mean
      square of the errors.
    """
    count = max(len(column) - order, 0)
    rows = np.stack([column[n : n + count] for n in range(order + 1)], axis=1)
    rows = rows[np.isfinite(rows).all(axis=1)]
    inputs, targets = np.insert(rows[:, :-1], order, 1.0, axis=1), rows[:, -1]
    coefficients = np.zeros(order + 1)
    coefficients[-2] = 1.0
    if len(rows) >= 2 * order + 2:
        coefficients = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    error = targets - inputs @ coefficients
    return coefficients, float(np.sqrt(np.mean(error**2))) if len(rows) else 1.0


def _constants(series: Series, train: np.ndarray, order: int) -> dict[str, np.ndarray]:
    """Statistics of the training part, in which a missing value does not count."""
    mean, std, linear, scale = [], [], [], []
    for name, column in zip(series.columns, train.T, strict=True):
        known = column[np.isfinite(column)]
        deviation = known.std() if len(known) else 0.0
        if not deviation > 1e-6 * np.abs(known).max(initial=0):
            raise UserError(
                f"column {shortened(name)} of {series.name} has no two different values in the "
                "training part: leave it out by --columns, or give more rows"
            )
        mean.append(known.mean())
        std.append(deviation)
        coefficients, error = autoregression((column - known.mean()) / deviation, order)
        linear.append(coefficients)
        scale.append(max(error, SMALLEST))
    return {
        "mean": np.asarray(mean),
        "std": np.asarray(std),
        "linear": np.stack(linear, axis=1),
        "scale": np.asarray(scale),
    }


def _fingerprint(series: Series) -> str:
    """SHA-256 of the names of the columns and of the values."""
    shape = f"{series.columns!r} {series.values.shape}\n".encode("utf-8", "surrogatepass")
    return hashlib.sha256(shape + series.values.astype("<f8").tobytes()).hexdigest()
