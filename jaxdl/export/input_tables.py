"""Rows of a table in CSV, and windows of a time series, as inputs of a trained model.

Shapes: T positions of a window with C columns.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxdl.data.columns import parse_columns
from jaxdl.data.table_columns import DELIMITERS, MISSING
from jaxdl.errors import UserError, first_line, shortened
from jaxdl.export.input_items import columns_of
from jaxdl.export.inputs import Inputs


class Window(NamedTuple):
    """Window of a series.

    Attributes:
      value: float32 [T, C], NaN where a value is missing; or the mistake.
      where: file and rows, for a message.
      start: number of rows before the window.
      skip: first positions that the window before has too.
    """

    value: np.ndarray | UserError
    where: str
    start: int
    skip: int


def rows(text: str, name: str, inputs: Inputs) -> Iterator[tuple[str, dict[str, str] | UserError]]:
    """Reads the rows of a table in CSV, or separated by tabs if the name ends in .tsv.

    The first row has the names of the columns. Without names in the description, each row has the
    numbers in order, and a first row of texts is left out. Empty cells are missing values. An
    empty line is a row of one column, and a mistake in a table of more.

    Args:
      text: content of the file.
      name: name of the file in messages.
      inputs: inputs that the model takes.

    Yields:
      The file and line of each row, and its texts by column or its mistake.

    Raises:
      UserError: the table lacks a column.
    """
    columns, is_named = columns_of(inputs), bool(inputs.spec.columns)
    delimiter = "\t" if name.lower().endswith(".tsv") else _delimiter(text, inputs)
    reader = _reader(text, delimiter)
    header = None
    try:
        for cells in reader:
            where = f"{name}:{reader.line_num}"
            if header is None:
                names = [cell.strip() for cell in cells]
                if not names or (is_named and names == [""]):
                    continue
                header = _header(name, names, columns, is_named, delimiter)
                if is_named or not any(_is_number(cell) or cell in MISSING for cell in names):
                    continue
            cells = cells or [""]
            if len(cells) == len(header):
                yield where, dict(zip(header, cells, strict=True))
            elif cells == [""]:
                yield where, UserError(f"{where}: an empty line: {_rule(header)}, or delete it")
            else:
                found = f"{len(cells)} cells, and the first row has {len(header)}"
                yield where, UserError(f"{where}: {found}: give the same number")
    except csv.Error as error:
        where = f"{name}:{reader.line_num}"
        why = f"{where} is not CSV ({first_line(error)}): correct the file from there on"
        yield where, UserError(why)


def _rule(header: Sequence[str]) -> str:
    return f"give {len(header)} cells, which may be empty"


def _reader(text: str, delimiter: str):  # type: ignore[no-untyped-def]  # a type without a name
    """Reader of CSV by the rules that tables are trained on."""
    lines = io.StringIO(text, newline="")
    return csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)


def _first(text: str, delimiter: str) -> list[str]:
    """Cells of the first line that is not empty; none if it is no CSV."""
    try:
        return [cell.strip() for cell in next(filter(any, _reader(text, delimiter)), [])]
    except csv.Error:
        return []


def _fits(names: Sequence[str], inputs: Inputs) -> bool:
    """Returns True if a first row has the columns that the model reads, or as many numbers."""
    columns = columns_of(inputs)
    return set(columns) <= set(names) if inputs.spec.columns else len(names) == len(columns)


def _delimiter(text: str, inputs: Inputs) -> str:
    """The comma, or the separator of the run's own table if the first line fits only that."""
    if _fits(_first(text, ","), inputs) or not _fits(_first(text, inputs.delimiter), inputs):
        return ","
    return inputs.delimiter


def _header(
    name: str, names: list[str], columns: tuple[str, ...], is_named: bool, delimiter: str
) -> tuple[str, ...]:
    """Checks the first row of a table; returns the names of its columns.

    Args:
      name: name of the file.
      names: cells of its first row.
      columns: names of the columns that the model reads.
      is_named: whether these are names of the description, not mere numbers.
      delimiter: separator of the cells.

    Raises:
      UserError: a column is missing, or there twice.
    """
    others = [word for word, mark in DELIMITERS.items() if mark != delimiter and mark in names[0]]
    if len(names) == 1 < len(columns) and others:
        raise UserError(
            f"{name} has one column, {shortened(names[0])!r}, and seems to be separated by "
            f"{others[0]}s: separate its cells by commas, or by tabs in a file that ends in .tsv"
        )
    if not is_named:
        if len(names) != len(columns):
            raise UserError(
                f"{name} has {len(names)} columns, and the model reads {len(columns)} numbers: "
                "give as many in each row"
            )
        return columns
    missing = [column for column in columns if column not in names]
    if missing:
        raise UserError(
            f"{name} has no column {shortened(', '.join(missing))}: its first row must name the "
            f"columns {shortened(', '.join(columns), 300)}"
        )
    twice = [column for column in columns if names.count(column) > 1]
    if twice:
        raise UserError(f"{name} has the column {shortened(twice[0])} twice: rename one")
    return tuple(names)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def series(text: str, name: str, inputs: Inputs) -> list[Window]:
    """Reads a time series: the last window for a forecast, else windows that cover all rows.

    The last window ends with the last row, and overlaps the one before if it must.

    Args:
      text: content of a CSV file, whose rows are in the order of time.
      name: name of the file in messages.
      inputs: inputs that the model takes.

    Raises:
      UserError: the file is not such a series, or is shorter than a window.
    """
    columns, (T, _) = inputs.spec.columns, inputs.entry.shape
    if names := _first(text, ","):
        _header(name, names, columns, True, ",")
    _, values = parse_columns(text, name, columns, "correct it")
    count = len(values)
    if count < T:
        raise UserError(f"{name} has {count:,} rows, and a window has {T:,}: give at least as many")
    starts = [] if inputs.is_forecast else [*range(0, count - T, T)]
    windows, end = [], count - T if inputs.is_forecast else 0
    for start in (*starts, count - T):
        value, where = values[start : start + T], f"{name}, rows {start + 1:,} to {start + T:,}"
        found: np.ndarray | UserError = value.astype(np.float32)
        if np.isnan(value).all():
            found = UserError(f"{where}: all values are missing: give some")
        windows.append(Window(found, where, start, end - start))
        end = start + T
    return windows
