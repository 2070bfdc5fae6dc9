"""Files of inputs for a trained model: images, lines of text, tables in CSV, arrays of NumPy.

A file, or an input in it, that cannot be read is an item with an error: the others are still read.
"""

import math
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from jaxdl import files, memory
from jaxdl.data.folder import ENDINGS
from jaxdl.errors import UserError, first_line, shortened
from jaxdl.export import input_tables
from jaxdl.export.input_items import encode
from jaxdl.export.inputs import (
    ARRAY,
    IMAGE,
    PROMPT,
    ROW,
    SERIES,
    SOURCE,
    Inputs,
    check_arrays,
    describe,
)

STDIN = "-"  # name of the standard input among files
ARRAYS = (".npy", ".npz")  # endings of files of arrays
LONGEST = 1_000_000  # characters of a line of text


class Item(NamedTuple):
    """One input.

    Attributes:
      name: name of the input for a table: its file, its file and line, or the text itself.
      value: arrays of an example by entry; a text to continue or to translate; or the error.
      where: file and line, for a message.
      start: of a window of a series, rows before it.
      skip: of a window of a series, first positions that the window before has too.
    """

    name: str
    value: Any
    where: str
    start: int = 0
    skip: int = 0


def read(names: Sequence[str], inputs: Inputs) -> Iterator[Item]:
    """Reads the inputs in files one by one.

    Args:
      names: files; `-` is the standard input. A folder stands for the images in it.
      inputs: inputs that the model takes.

    Yields:
      The inputs in order.
    """
    for name in names:
        try:
            yield from _read(name, inputs)
        except OSError as error:
            why = error.strerror or first_line(error)
            yield _failed(name, UserError(f"cannot read {name} ({why}): give another file"))
        except UserError as error:
            yield _failed(name, error)


def _failed(name: str, error: Exception, where: str = "") -> Item:
    return Item(name, error, where or name)


def _read(name: str, inputs: Inputs) -> Iterator[Item]:
    """Reads the inputs of one file.

    Raises:
      UserError: the file as a whole cannot be used.
      OSError: it cannot be read.
    """
    path = Path(name)
    if name != STDIN and inputs.form == IMAGE and path.is_dir():
        yield from _folder(path, inputs)
    elif name != STDIN and path.suffix.lower() in ARRAYS:
        yield from _arrays(path, inputs)
    elif inputs.form in (ARRAY, IMAGE) and name == STDIN:
        raise UserError(f"the model takes {describe(inputs)}: name files")
    elif inputs.form == ARRAY:
        raise UserError(f"{name}: the model takes {describe(inputs)}: give a .npy or .npz file")
    elif inputs.form == IMAGE:
        yield _item(name, name, inputs)
    elif inputs.form == ROW:
        yield from _rows(name, inputs)
    elif inputs.form == SERIES:
        (entry,), label = inputs.entries, _label(name)
        for window in input_tables.series(_text(name), label, inputs):
            is_wrong = isinstance(window.value, UserError)
            value = window.value if is_wrong else {entry: window.value}
            yield Item(label, value, window.where, window.start, window.skip)
    else:
        yield from _lines(name, inputs)


def _item(name: str, given: Any, inputs: Inputs, where: str = "") -> Item:
    """Encodes an input; a mistake becomes the item's value."""
    try:
        example = encode(inputs, given)
    except UserError as error:
        text = f"{where}: {error}" if where else str(error)
        return _failed(name, UserError(text), where)
    value = given if inputs.form in (PROMPT, SOURCE) else example
    return Item(name, value, where or name)


def _folder(folder: Path, inputs: Inputs) -> Iterator[Item]:
    """Reads the images of a folder, without those of its subfolders and hidden ones."""
    paths = sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
    images = [p for p in paths if p.suffix.lower() in ENDINGS and not p.name.startswith(".")]
    if not images:
        raise UserError(f"{folder} has no images ({', '.join(ENDINGS)}): name a folder with some")
    for path in images:
        yield _item(str(path), str(path), inputs)


def _text(name: str) -> str:
    """Reads a text file, or the standard input.

    Raises:
      UserError: it is empty, too large, or not a text in UTF-8.
      OSError: it cannot be read.
    """
    limit = memory.installed() // 8  # lines and tokens take several times the file's size
    if name == STDIN:
        name = "standard input"
        data = sys.stdin.buffer.read(limit + 1)
        if len(data) > limit:
            raise UserError(f"{name} has more than {limit:,} bytes: divide it")
    else:
        data = files.read_bytes(Path(name), limit, follow=True)
    if not data.strip():
        raise UserError(f"{name} is empty: give at least one line")
    if b"\0" in data:
        raise UserError(f"{name} has a NUL byte, so it is not a text file: give one in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 ({error.reason}): convert the file") from error


def _label(name: str) -> str:
    return "stdin" if name == STDIN else name


def _lines(name: str, inputs: Inputs) -> Iterator[Item]:
    """Reads lines of text; only line feeds end a line."""
    for number, line in enumerate(_text(name).removesuffix("\n").split("\n"), 1):
        text, where = line.removesuffix("\r"), f"{_label(name)}:{number}"
        if not text.strip():
            yield _failed("", UserError(f"{where}: an empty line: give some text"), where)
        elif len(text) > LONGEST:
            error = UserError(
                f"{where}: {len(text):,} characters, more than {LONGEST:,}: divide the line"
            )
            yield _failed(shortened(text), error, where)
        else:
            yield _item(text, text, inputs, where)


def _rows(name: str, inputs: Inputs) -> Iterator[Item]:
    """Reads the rows of a table, see `input_tables.rows`.

    Raises:
      UserError: the table lacks a column.
    """
    for where, row in input_tables.rows(_text(name), _label(name), inputs):
        yield (
            _failed(where, row) if isinstance(row, UserError) else _item(where, row, inputs, where)
        )


def _arrays(path: Path, inputs: Inputs) -> Iterator[Item]:
    """Reads the examples of a file of NumPy: .npz has an array for each entry, .npy the only one.

    Raises:
      UserError: it is damaged, too large, or has other arrays than the model reads.
      OSError: it cannot be read.
    """
    with files.open_regular(path, follow=True) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            if path.suffix.lower() == ".npz":
                arrays = _archive(file, list(inputs.entries))
            elif len(inputs.entries) > 1:
                raise UserError(f"one array, not {', '.join(inputs.entries)}: give a .npz file")
            else:
                arrays = {next(iter(inputs.entries)): _array(file, size)}
            batch = check_arrays(inputs, arrays)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        except Exception as error:  # zipfile and NumPy may raise any error on a damaged file
            raise UserError(
                f"{path} is not a file of NumPy ({first_line(error)}): save the arrays again, by "
                "numpy.save or numpy.savez"
            ) from error
    for n in range(len(next(iter(batch.values())))):
        where = f"{path}:{n + 1}"
        yield Item(where, {name: array[n] for name, array in batch.items()}, where)


def _archive(file: IO[bytes], names: list[str]) -> dict[str, np.ndarray]:
    """Reads the arrays of a .npz file that have these names; a missing one is left out."""
    arrays = {}
    with zipfile.ZipFile(file) as archive:
        members = {item.filename.removesuffix(".npy"): item for item in archive.infolist()}
        for name in names:
            if name in members:
                with archive.open(members[name]) as member:
                    arrays[name] = _array(member, members[name].file_size)
    return arrays or dict.fromkeys(members, np.zeros(0))  # a message lists them


def _array(file: IO[bytes], size: int) -> np.ndarray:
    """Reads an array of NumPy's format; its header must not promise more than the file has.

    Args:
      file: the file, at its start.
      size: its bytes.

    Raises:
      UserError: it is larger than the memory allows.
      ValueError: it is damaged, or its entries are Python objects.
    """
    limit = memory.installed() // 4
    if size > limit:
        raise UserError(f"{size:,} bytes, more than {limit:,}: divide the file")
    version = np.lib.format.read_magic(file)
    readers: dict[Any, Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the format")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("Python objects")
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError("fewer bytes than its header says")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)
