"""Generated parts of a page, such as the tables of a README, each between two marks."""

from pathlib import Path
from typing import NamedTuple

from jaxdl import files
from jaxdl.errors import UserError, first_line


class Part(NamedTuple):
    """Marks before and after a generated part: lines that the page does not show."""

    begin: str
    end: str


def check(page: Path, part: Part) -> None:
    """Checks that a page has a place for a part.

    Raises:
      UserError: the page cannot be read, or lacks the marks.
    """
    _split(page, part)


def read(page: Path) -> str:
    """Returns the text of a page.

    Raises:
      UserError: the page cannot be read.
    """
    try:
        return page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{page} cannot be read ({first_line(error)}): name a text file") from error


def fill(page: Path, part: Part, text: str) -> None:
    """Replaces the text between the marks of a part.

    Raises:
      UserError: the page cannot be read, or lacks the marks.
    """
    before, after = _split(page, part)
    files.write_text(page, f"{before}{part.begin}\n\n{text}\n\n{part.end}{after}")


def _split(page: Path, part: Part) -> tuple[str, str]:
    """Returns the texts before the first mark and after the second."""
    text = read(page)
    if not 0 <= text.find(part.begin) < text.find(part.end):
        raise UserError(
            f"{page} lacks the lines {part.begin} and {part.end}: add them where the table belongs"
        )
    before, remainder = text.split(part.begin, 1)
    return before, remainder.split(part.end, 1)[1]
