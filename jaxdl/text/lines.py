"""Reader of parallel text files, UTF-8 with one sentence a line; errors name file and line."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from jaxdl import files, memory
from jaxdl.errors import UserError

LONGEST = 10_000  # characters; a file with a longer line does not hold sentences


class Lines(NamedTuple):
    """Parallel sentences: sentence n of the target translates sentence n of the source."""

    source: list[str]
    target: list[str]


def read(source: Path, target: Path) -> tuple[Lines, str]:
    """Reads two files of parallel sentences.

    Args:
      source: path of the source file.
      target: path of the target file.

    Returns:
      The sentences, and the SHA-256 of both files.

    Raises:
      UserError: a file cannot be read, is not UTF-8, or has a line that is empty or too long; or
        the files differ in their number of lines.
    """
    data = [_bytes(path) for path in (source, target)]
    lines = Lines(_sentences(data[0], source), _sentences(data[1], target))
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
        limit = memory.installed() // 8  # lines and tokens take several times the file's size
        return files.read_bytes(path, limit, follow=True)
    except OSError as error:
        text = f"cannot read {path} ({error.strerror}): give a file of one sentence a line"
        raise UserError(text) from error


def _sentences(data: bytes, path: Path) -> list[str]:
    """Splits a file into sentences, only at line feeds: other separators may be in a sentence."""
    rows = data.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    sentences = []
    for number, row in enumerate(rows, 1):
        where = f"{path}, line {number:,}"
        try:
            text = row.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{where} is not UTF-8 ({error.reason}): convert the file") from error
        if not text.strip():
            raise UserError(f"{where} is empty: delete that line in both files")
        if len(text) > LONGEST:
            raise UserError(
                f"{where} has {len(text):,} characters, more than {LONGEST:,}: divide it or delete "
                "that line in both files"
            )
        sentences.append(text)
    return sentences
