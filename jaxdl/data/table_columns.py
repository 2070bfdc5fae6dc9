"""Tables in memory: columns of numbers or texts, and the place of each row in its file.

Shapes: N rows of D columns.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdl.data.columns import LARGEST
from jaxdl.errors import UserError, shortened

MISSING = frozenset(("", "NA", "NaN", "nan", "?"))  # texts of a missing value
COLUMNS = 10_000  # of a table
ROW_NAMES = ("", "__index_level_0__")  # a first column without a name, and its name by pandas
LONGEST_NAME = 200  # characters of a column's name
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t"}  # of a CSV file
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Column(NamedTuple):
    """Column of a table.

    Attributes:
      numbers: values as numbers, float64 [N]; NaN where a value is missing or not a number.
      missing: True where a value is missing, bool [N].
      codes: index of each value in `texts`, int32 [N], -1 where it is missing; None for a column of
        numbers only, whose texts are made when they are needed.
      texts: the distinct values.
    """

    numbers: np.ndarray
    missing: np.ndarray
    codes: np.ndarray | None = None
    texts: tuple[str, ...] = ()

    def invalid(self) -> np.ndarray:
        """Returns True where a value is present but not a number, bool [N]."""
        return np.isnan(self.numbers) & ~self.missing

    def text(self, row: int) -> str:
        """Text of the value of a row."""
        if self.codes is None:
            return number_text(self.numbers[row])
        return self.texts[self.codes[row]] if self.codes[row] >= 0 else ""

    def select(self, rows: np.ndarray) -> "Column":
        """Selects rows, integers [M]."""
        codes = None if self.codes is None else self.codes[rows]
        return Column(self.numbers[rows], self.missing[rows], codes, self.texts)


def is_mistyped(column: Column, rows: np.ndarray) -> bool:
    """Returns True for a column of numbers with a few cells that are none.

    These are columns with at least 90 % numbers, of which most rows have one of their own: more
    than 20 different values, in more than half of the rows.

    Args:
      column: the column.
      rows: rows that count, bool [N].
    """
    rows = rows & ~column.missing
    invalid = column.invalid()[rows]
    if not invalid.any() or column.codes is None:
        return False
    distinct = len(np.unique(column.codes[rows]))
    return bool(
        10 * invalid.sum() <= len(invalid) and distinct > 20 and 2 * distinct > len(invalid)
    )


class Table(NamedTuple):
    """Table that is read from one or several files.

    Attributes:
      columns: columns by name, in the order of the file.
      lines: number of each row in its file, int64 [N].
      files: index of each row's file in `places`, int32 [N].
      places: name of each file and the word for its numbers, "line" or "row".
    """

    columns: dict[str, Column]
    lines: np.ndarray
    files: np.ndarray
    places: tuple[tuple[str, str], ...]

    def place(self, row: int) -> str:
        """Names the file and the line of a row, for a message."""
        name, word = self.places[self.files[row]]
        return f"{name}, {word} {self.lines[row]}"

    def select(self, rows: np.ndarray) -> "Table":
        """Selects rows, integers [M]."""
        columns = {name: column.select(rows) for name, column in self.columns.items()}
        return self._replace(columns=columns, lines=self.lines[rows], files=self.files[rows])


def quoted(name: str) -> str:
    """Name of a column as the value of a flag has it."""
    return f'"{name}"' if "," in name else name


def number(text: str) -> float:
    """Number that a text stands for; NaN if it is none or is larger than LARGEST.

    >>> number("-1.5e3"), number("1_000"), number("inf")
    (-1500.0, nan, nan)
    """
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return value if abs(value) <= LARGEST else math.nan


def number_text(value: float) -> str:
    """Shortest text of a number; whole numbers have no decimal point.

    >>> number_text(3.0), number_text(0.25)
    ('3', '0.25')
    """
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def text_column(
    codes: np.ndarray, texts: Sequence[str], missing: frozenset[str] = MISSING
) -> Column:
    """Makes a column of texts, without the spaces around them.

    Args:
      codes: index of each value in `texts`, int32 [N]; -1 where it is missing.
      texts: the distinct values.
      missing: texts that count as missing.
    """
    index: dict[str, int] = {}
    merged = [
        -1 if text in missing else index.setdefault(text, len(index))
        for text in map(str.strip, texts)
    ]
    codes = np.array([*merged, -1], np.int32)[codes]  # a code of -1 takes the last entry
    numbers = np.array([*map(number, index), math.nan])
    return Column(numbers[codes], codes < 0, codes, tuple(index))


def number_column(values: np.ndarray) -> Column:
    """Makes a column of numbers, float64 [N]; NaN is missing, and those above LARGEST are none."""
    missing = np.isnan(values)
    if np.any(np.abs(values) > LARGEST):
        texts, codes = np.unique(values.astype(str), return_inverse=True)
        return text_column(codes.astype(np.int32), texts.tolist())
    return Column(values, missing)


def with_texts(column: Column) -> Column:
    """Gives a column of numbers its texts."""
    if column.codes is not None:
        return column
    present = ~column.missing
    values, inverse = np.unique(column.numbers[present], return_inverse=True)
    codes = np.full(len(column.numbers), -1, np.int32)
    codes[present] = inverse
    return column._replace(codes=codes, texts=tuple(map(number_text, values)))


def join(tables: Sequence[Table]) -> Table:
    """Joins tables of the same columns, one below the other, in the first table's order.

    Raises:
      UserError: a table lacks a column of another.
    """
    first = tables[0]
    for table in tables[1:]:
        different = sorted(set(first.columns) ^ set(table.columns))
        if different:
            raise UserError(
                f"{first.places[0][0]} and {table.places[0][0]} differ in the columns "
                f"{shortened(', '.join(different))}: give both the same columns"
            )
    columns = {name: _join([table.columns[name] for table in tables]) for name in first.columns}
    return Table(
        columns,
        np.concatenate([table.lines for table in tables]),
        np.concatenate([np.full(len(t.lines), n, np.int32) for n, t in enumerate(tables)]),
        tuple(table.places[0] for table in tables),
    )


def _join(columns: Sequence[Column]) -> Column:
    numbers = np.concatenate([column.numbers for column in columns])
    missing = np.concatenate([column.missing for column in columns])
    if all(column.codes is None for column in columns):
        return Column(numbers, missing)
    index: dict[str, int] = {}
    parts = []
    for column in map(with_texts, columns):
        codes = [index.setdefault(text, len(index)) for text in column.texts]
        parts.append(np.array([*codes, -1], np.int32)[column.codes])
    return Column(numbers, missing, np.concatenate(parts), tuple(index))


def check_names(place: str, row: list[str], delimiter: str = "comma") -> list[str]:
    """Checks the names of the columns of a table.

    Args:
      place: name of the file.
      row: its first row.
      delimiter: separator that it was read with.

    Returns:
      The names, without the spaces around them; the first may be empty.

    Raises:
      UserError: they are missing, not unique, too many or too long.
    """
    names = [name.strip() for name in row]
    if all(NUMBER.fullmatch(name) for name in names):
        raise UserError(
            f"{place} begins with the numbers {shortened(', '.join(names))}: its first line must "
            "have the names of the columns"
        )
    if len(names) > COLUMNS:
        raise UserError(f"{place} has {len(names):,} columns: the limit is {COLUMNS:,}")
    long = [name for name in names if len(name) > LONGEST_NAME]
    if long or "" in names[1:] or names == [""]:
        fault = f"the name {shortened(long[0])!r} of a column" if long else "a column without name"
        raise UserError(f"{place} has {fault}: give names of 1 to {LONGEST_NAME} characters")
    twice = [name for n, name in enumerate(names) if name in names[:n]]
    if twice:
        raise UserError(f"{place} has two columns {shortened(twice[0])!r}: rename one")
    others = [word for word, mark in DELIMITERS.items() if word != delimiter and mark in names[0]]
    if len(names) == 1 and others:
        raise UserError(
            f"{place} has one column, {shortened(names[0])!r}: give --delimiter={others[0]}"
        )
    return names
