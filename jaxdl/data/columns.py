"""Columns of numbers in a CSV file: every cell is checked, and a missing one is NaN.

Shapes: N rows of C columns.
"""

import csv
import io
import math
from pathlib import Path

import numpy as np

from jaxdl import files, memory
from jaxdl.errors import UserError, shortened

MISSING = {"", "na", "n/a", "nan", "null"}  # cells without a value, in lower case
LARGEST = 1e30  # largest absolute value of a cell: its square is a float32
MOST_COLUMNS = 4096
BY_COLUMNS = "name only columns of numbers by --columns=a,b"


def read_columns(path: Path, columns: tuple[str, ...] = ()) -> tuple[tuple[str, ...], np.ndarray]:
    """Reads columns of numbers from a CSV file in UTF-8 with names in its first line.

    Rows are in the order of time. A cell that is empty or has one of MISSING is a missing value.

    Args:
      path: path of the file.
      columns: names of the columns to read; empty: all.

    Returns:
      The names of the columns, and their values, float64 [N, C].

    Raises:
      UserError: the file cannot be read, is no CSV file with a line of names, lacks a column, or
        has a cell in one of the columns that is not a finite number.
    """
    try:
        # Text and cells take several times the file's size.
        content = files.read_bytes(path, memory.installed() // 16, follow=True)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): give a CSV file") from error
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}): convert the file") from error
    return parse_columns(text, str(path), columns)


def parse_columns(
    text: str, path: str, columns: tuple[str, ...] = (), advice: str = BY_COLUMNS
) -> tuple[tuple[str, ...], np.ndarray]:
    """Reads columns of numbers from the text of a CSV file, see `read_columns`.

    Args:
      text: the text.
      path: name of the file in messages.
      columns: names of the columns to read; empty: all.
      advice: way out in the message about a cell that is not a number.

    Raises:
      UserError: as `read_columns`.
    """
    rows = _rows(text, path)
    header = rows[0][1]
    if all(_number(cell) is not None for cell in header):
        raise UserError(f"{path}, line 1 has no names: put a line of column names above the rows")
    where = positions(header, columns, path)
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
                    f"{shortened(cells[column], 40)!r} is not a number of at most 1e30: {advice}, "
                    "and leave a cell empty where a value is missing"
                )
            values[n, m] = value
    return tuple(header[n] for n in where), values


def _rows(text: str, path: str) -> list[tuple[int, list[str]]]:
    """Splits a CSV file into rows of cells, each with the number of its last line."""
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


def positions(
    header: tuple[str, ...] | list[str], columns: tuple[str, ...], name: str
) -> list[int]:
    """Positions of the chosen columns in a header, all if none is chosen.

    Args:
      header: names of all columns.
      columns: names of the chosen ones; empty: all.
      name: name of the data, for the message.

    Raises:
      UserError: a name is not in the header, or twice.
    """
    chosen = columns or tuple(header)
    for column in chosen:
        if list(header).count(column) != 1 or not column or chosen.count(column) > 1:
            text = "is named twice" if column in header and column else "is not there"
            raise UserError(
                f"--columns={shortened(','.join(columns))}: column {shortened(column, 40)!r} {text}"
                f": {shortened(name)} has {shortened(', '.join(header))}; name each once"
            )
    return [list(header).index(column) for column in chosen]
