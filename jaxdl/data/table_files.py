"""Reading of CSV tables, and of a table's file or folder in CSV or Parquet.

Files are untrusted: sizes are bounded, and a link out of a folder is not followed.
"""

import csv
import errno
import hashlib
import io
from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdl import files
from jaxdl.data.table_columns import DELIMITERS, Table, check_names, text_column
from jaxdl.errors import UserError, first_line, shortened

LARGEST = {".csv": 1 << 28, ".parquet": 1 << 31}  # bytes of a file, by its ending
CELLS = 20_000_000  # of a CSV table
SPLITS = ("train", "validation", "test")


class Source(NamedTuple):
    """Content of a table's file.

    Attributes:
      name: name of the file in messages.
      ending: `.csv` or `.parquet`.
      content: its bytes.
    """

    name: str
    ending: str
    content: bytes

    def sha256(self) -> str:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self.content).hexdigest()


def find(path: Path) -> dict[str, Source]:
    """Reads the bytes of a table.

    Args:
      path: a CSV or Parquet file, or a folder with train.csv, test.csv and optionally
        validation.csv (or .parquet).

    Returns:
      The file under "", or the files by split.

    Raises:
      UserError: there is no such table, or it is too large.
    """
    try:
        return _find(path)
    except OSError as error:
        raise UserError(
            f"--dataset={shortened(path, 300)} cannot be read ({error.strerror}): name a CSV or "
            "Parquet file, or a folder with train.csv and test.csv"
        ) from error


def _find(path: Path) -> dict[str, Source]:
    """Reads the bytes of a table; see `find`.

    Raises:
      UserError: there is no such table, or it is too large.
      OSError: its folder cannot be read.
    """
    if not path.is_dir():
        return {"": _read(path, path.name)}
    sources = {}
    for split in SPLITS:
        names = [f"{split}{ending}" for ending in LARGEST if (path / f"{split}{ending}").exists()]
        if len(names) > 1:
            raise UserError(f"--dataset={path} has {' and '.join(names)}: leave one of them")
        if names:
            inside = (path / names[0]).resolve().is_relative_to(path.resolve())
            if not inside:
                raise UserError(
                    f"--dataset={path}: {names[0]} is a link out of the folder: put the file there"
                )
            sources[split] = _read(path / names[0], names[0])
    missing = [split for split in ("train", "test") if split not in sources]
    if missing:
        raise UserError(
            f"--dataset={path} has no {missing[0]}.csv or {missing[0]}.parquet: name a file, or a "
            "folder with train.csv and test.csv"
        )
    return sources


def _read(path: Path, name: str) -> Source:
    ending = path.suffix.lower()
    if ending not in LARGEST:
        raise UserError(
            f"--dataset={path}: a table ends in {' or '.join(LARGEST)}, or is a folder with "
            "train.csv and test.csv"
        )
    try:
        return Source(name, ending, files.read_bytes(path, LARGEST[ending], follow=True))
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise UserError(
            f"--dataset={path} has {error.strerror}: leave out rows or columns, or split it into "
            "train.parquet, validation.parquet and test.parquet"
        ) from error


class Rejected:
    """Rows that are left out, or refused at once.

    Attributes:
      skip: leave them out and count them; otherwise the first one is an error.
      count: number of rows that were left out.
      first: message of the first one.
    """

    def __init__(self, skip: bool):
        self.skip, self.count, self.first = skip, 0, ""

    def add(self, text: str, count: int = 1, way_out: str = "correct it") -> None:
        """Counts rows.

        Args:
          text: place of the first of them and its fault.
          count: number of rows.
          way_out: advice besides leaving rows out.

        Raises:
          UserError: rows are not to be left out.
        """
        if not self.skip:
            raise UserError(f"{text}: {way_out}, or leave such rows out by --on_bad_example=skip")
        self.first = self.first or text
        self.count += count


def read(source: Source, delimiter: str, rejected: Rejected) -> Table:
    """Reads a table.

    Args:
      source: its file.
      delimiter: separator of the fields of a CSV file, one of DELIMITERS.
      rejected: receives rows with too few or too many fields.

    Raises:
      UserError: the file is not a table, or has such a row.
    """
    if source.ending == ".parquet":
        from jaxdl.data import parquet

        table = parquet.read(source.name, source.content)
    else:
        table = read_csv(source.name, source.content, delimiter, rejected)
    if not len(table.lines):
        raise UserError(f"{source.name} has no rows below its names of columns: give it some")
    return table


def read_csv(name: str, content: bytes, delimiter: str, rejected: Rejected) -> Table:
    """Reads a CSV table of RFC 4180: quoted fields, any line ends, UTF-8 with or without BOM.

    Args:
      name: name of the file in messages.
      content: its bytes.
      delimiter: one of DELIMITERS.
      rejected: receives rows with too few or too many fields.

    Raises:
      UserError: the file is not a table, or has such a row.
    """
    text = _decode(name, content)
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=DELIMITERS[delimiter],
        strict=True,
        skipinitialspace=True,
    )
    lines, end = array("q"), 0
    names: list[str] = []
    codes: list[array[int]] = []
    indices: list[dict[str, int]] = []
    try:
        for row in reader:
            line, end = end + 1, reader.line_num
            if row in ([], [""]):  # an empty line
                continue
            if not names:
                names = check_names(name, row, delimiter)
                codes, indices = [array("i") for _ in names], [{} for _ in names]
            elif len(row) != len(names):
                rejected.add(
                    f"{name}, line {line} has {len(row)} fields, and there are {len(names)} columns"
                )
            else:
                lines.append(line)
                for column, index, value in zip(codes, indices, row, strict=True):
                    column.append(index.setdefault(value, len(index)))
                if len(lines) * len(names) > CELLS:
                    raise UserError(
                        f"{name} has more than {CELLS:,} fields: save it as .parquet, which is "
                        "read faster and in less memory"
                    )
    except csv.Error as error:
        raise UserError(
            f"{name}, line {end + 1}: {first_line(error)}: correct the quotes of this line, or cut "
            "the field"
        ) from error
    if not names:
        raise UserError(f"{name} is empty: give a line of names and rows below it")
    columns = {
        column: text_column(np.frombuffer(values, np.int32), tuple(index))
        for column, values, index in zip(names, codes, indices, strict=True)
    }
    numbers = np.frombuffer(lines, np.int64)
    return Table(columns, numbers, np.zeros(len(numbers), np.int32), ((name, "line"),))


def _decode(name: str, content: bytes) -> str:
    """Decodes UTF-8.

    Raises:
      UserError: the bytes are not text in UTF-8.
    """
    end, fault = content.find(b"\0"), "a NUL byte"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text, end, fault = "", error.start, "bytes that are not UTF-8"
    if end >= 0:
        line = content.count(b"\n", 0, end) + 1
        raise UserError(f"{name}, line {line} has {fault}: save the table as text in UTF-8")
    return text
