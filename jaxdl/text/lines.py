"""Files of one sentence a line, UTF-8: every mistake in them is named by file and line."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from jaxdl import files, memory
from jaxdl.errors import UserError

LONGEST = 10_000  # characters of a line: nobody's sentence, but a file that is something else


class Lines(NamedTuple):
    """Parallel sentences: line n of one translates line n of the other."""

    source: list[str]
    target: list[str]


def read(source: Path, target: Path) -> tuple[Lines, str]:
    """The sentences of two files, and the SHA-256 of their bytes.

    Raises:
      UserError: one cannot be read, is no UTF-8, has an empty line or one that is too long, or they
        differ in their number of lines.
    """
    data = [_bytes(path) for path in (source, target)]
    lines = Lines(*(_sentences(*both) for both in zip(data, (source, target), strict=True)))
    counts = [len(side) for side in lines]
    if counts[0] != counts[1]:
        raise UserError(
            f"{source} has {counts[0]:,} lines and {target} {counts[1]:,}: line n of one must "
            "translate line n of the other, so give files that do"
        )
    shas = "".join(hashlib.sha256(content).hexdigest() for content in data)
    return lines, hashlib.sha256(shas.encode()).hexdigest()


def _bytes(path: Path) -> bytes:
    try:
        largest = memory.installed() // 8  # as lines and tokens it takes several times as much
        return files.read_bytes(path, largest, follow=True)
    except OSError as error:
        text = f"cannot read {path} ({error.strerror}): give a file of one sentence a line"
        raise UserError(text) from error


def _sentences(data: bytes, path: Path) -> list[str]:
    """The lines of a file; only line feeds end them, for other marks may be in a sentence."""
    rows = data.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    found = []
    for number, row in enumerate(rows, 1):
        where = f"{path}, line {number:,}"
        try:
            text = row.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{where} is no UTF-8 ({error.reason}): convert the file") from error
        if not text.strip():
            raise UserError(f"{where} is empty: delete that line of both files")
        if len(text) > LONGEST:
            raise UserError(
                f"{where} has {len(text):,} characters, and a sentence may have {LONGEST:,}: "
                "divide it or delete that line of both files"
            )
        found.append(text)
    return found
