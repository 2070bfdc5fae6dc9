"""Time series: two integrated chaotic systems, and columns of a CSV file.

A series is cut into windows of T positions and the H positions after them. The windows are gathered
when a batch is made, not stored. A missing value is NaN.

Shapes: N points of a series with C columns, M windows.
"""

import csv
import dataclasses
import hashlib
import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxdl import files, memory
from jaxdl.data.batches import Dataset, Split, windows
from jaxdl.data.describe import describe
from jaxdl.errors import UserError, shortened

MISSING = {"", "na", "n/a", "nan", "null"}  # cells without a value, in lower case
LARGEST = 1e30  # largest absolute value of a cell: its square is a float32
MOST_COLUMNS = 4096


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
      UserError: there is no such data set or column, or see `read_csv`.
    """
    chosen = tuple(name.strip() for name in next(csv.reader([columns], skipinitialspace=True), []))
    if is_file(name):
        return read_csv(Path(name).expanduser(), chosen)
    if name not in (*SYSTEMS, "embedded"):
        raise UserError(
            f"--dataset={shortened(name)}: choose {', '.join(SYSTEMS)}, embedded, or a CSV file, "
            "whose path begins with / or ./"
        )
    series = SYSTEMS.get(name, mackey_glass)(points)
    where = _positions(series.columns, chosen, name)
    names = tuple(series.columns[n] for n in where)
    return dataclasses.replace(series, columns=names, values=series.values[:, where])


def is_file(name: str) -> bool:
    """Returns True if the name of a data set is a path.

    >>> is_file("./sales.csv"), is_file("lorenz")
    (True, False)
    """
    return name.startswith(("/", "~", "./", "../"))


def read_csv(path: Path, columns: tuple[str, ...] = ()) -> Series:
    """Reads columns of numbers from a CSV file in UTF-8 with names in its first line.

    Rows are in the order of time. A cell that is empty or has one of MISSING is a missing value.

    Args:
      path: path of the file.
      columns: names of the columns to read; empty: all.

    Raises:
      UserError: the file cannot be read, is no CSV file with a line of names, lacks a column, or
        has a cell in one of the columns that is not a finite number.
    """
    rows = _rows(path)
    header = rows[0][1]
    if all(_number(cell) is not None for cell in header):
        raise UserError(f"{path}, line 1 has no names: put a line of column names above the rows")
    where = _positions(header, columns, str(path))
    values = np.empty((len(rows) - 1, len(where)))
    for n, (line, cells) in enumerate(rows[1:]):
        if len(cells) != len(header):
            raise UserError(
                f"{path}, line {line:,} has {len(cells)} cells, and line 1 has {len(header)} "
                "names: give each row one cell for each name"
            )
        for m, column in enumerate(where):
            value = _number(cells[column])
            if value is None:
                raise UserError(
                    f"{path}, line {line:,}, column {shortened(header[column], 40)}: "
                    f"{shortened(cells[column], 40)!r} is not a number of at most 1e30: name only "
                    "columns of numbers by --columns=a,b, and leave a cell empty where a value is "
                    "missing"
                )
            values[n, m] = value
    return Series("csv", tuple(header[n] for n in where), values, f"file {path}")


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Splits a CSV file into rows of cells, each with the number of its last line."""
    try:
        # Text and cells take several times the file's size.
        content = files.read_bytes(path, memory.installed() // 16, follow=True)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): give a CSV file") from error
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}): convert the file") from error
    if "\0" in text:
        raise UserError(f"{path} has NUL characters, so it is not a CSV file: give another file")
    reader = csv.reader(io.StringIO(text.rstrip("\r\n"), newline=""), strict=True)
    try:
        # The only cell of a line without characters is empty.
        rows = [(reader.line_num, [cell.strip() for cell in row] or [""]) for row in reader]
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num:,} is not CSV ({error}): correct the quotes there"
        ) from error
    if not rows:
        raise UserError(f"{path} is empty: give a CSV file with a line of names and rows below it")
    if len(rows[0][1]) > MOST_COLUMNS:
        raise UserError(
            f"{path} has {len(rows[0][1]):,} columns, more than {MOST_COLUMNS:,}: divide the file"
        )
    return rows


def _number(cell: str) -> float | None:
    """Converts a cell to a number, NaN if it is missing; None if it is neither."""
    if cell.lower() in MISSING:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST and "_" not in cell else None


def _positions(
    header: tuple[str, ...] | list[str], columns: tuple[str, ...], name: str
) -> list[int]:
    """Returns the positions of the chosen columns in a header, all if none is chosen."""
    chosen = columns or tuple(header)
    for column in chosen:
        if list(header).count(column) != 1 or not column or chosen.count(column) > 1:
            text = "is named twice" if column in header and column else "is not there"
            raise UserError(
                f"--columns={shortened(','.join(columns))}: column {shortened(column, 40)!r} {text}"
                f": {shortened(name)} has {shortened(', '.join(header))}; name each once"
            )
    return [list(header).index(column) for column in chosen]


def dataset(
    series: Series,
    *,
    length: int,
    horizon: int = 0,
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
      validation_fraction: fraction of the N points for validation.
      test_fraction: fraction of the N points for the test, the last ones.

    Returns:
      The data set, with splits {"x": float32 [M, T, C], "y": float32 [M, H, C]}, the latter if H is
      not 0. The constants of its description are those of the training part: `mean`, `std` and
      `step` [C], the root mean square of the change between neighbouring points.

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
            raise UserError(
                f"{series.name}: none of the {max(end - begin, 0):,} points for {name} of "
                f"{points:,} has {length + horizon} positions (--length={length}"
                f"{f', --horizon={horizon}' if horizon else ''}) with values at the targets: "
                "give a longer series, a shorter window, or other fractions"
            )
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
        constants=_constants(series, series.values[: ends[0]]),
    )
    return Dataset(spec, *splits)


def _usable(values: np.ndarray, starts: np.ndarray, length: int, horizon: int) -> np.ndarray:
    """Windows with a value, and with one at the first and the last target: bool [M]."""
    present = np.isfinite(values).any(axis=1)
    count = np.concatenate([[0], np.cumsum(present)])
    usable = count[starts + length] > count[starts]
    if horizon:
        usable &= present[starts + length] & present[starts + length + horizon - 1]
    return usable


def _constants(series: Series, train: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics [C] of the training part, in which a missing value does not count."""
    mean, std, step = [], [], []
    for name, column in zip(series.columns, train.T, strict=True):
        known = column[np.isfinite(column)]
        deviation = known.std() if len(known) else 0.0
        if not deviation > 1e-6 * np.abs(known).max(initial=0):
            raise UserError(
                f"column {shortened(name)} of {series.name} has no two different values in the "
                "training part: leave it out by --columns, or give more rows"
            )
        change = np.diff(column)
        change = change[np.isfinite(change)]
        size = np.sqrt(np.mean(change**2)) if len(change) else 0.0
        mean.append(known.mean())
        std.append(deviation)
        step.append(min(size, deviation) or deviation)
    return {"mean": np.asarray(mean), "std": np.asarray(std), "step": np.asarray(step)}


def _fingerprint(series: Series) -> str:
    """SHA-256 of the names of the columns and of the values."""
    shape = f"{series.columns!r} {series.values.shape}\n".encode("utf-8", "surrogatepass")
    return hashlib.sha256(shape + series.values.astype("<f8").tobytes()).hexdigest()
