"""A page whose part between two marks is made from files: the tables of a README."""

from pathlib import Path
from typing import NamedTuple

from jaxdl import files
from jaxdl.errors import UserError, first_line


class Part(NamedTuple):
    """The marks between which it stands: lines that the page's readers do not see."""

    begin: str
    end: str


def check(page: Path, part: Part) -> None:
    """Holds a page ready for a part.

    Raises:
      UserError: it cannot be read, or has no marks.
    """
    _around(page, part)


def fill(page: Path, part: Part, text: str) -> None:
    """Puts a text into a page, in the place of what stands between the part's marks.

    Raises:
      UserError: as for `check`.
    """
    before, after = _around(page, part)
    files.write_text(page, f"{before}{part.begin}\n\n{text}\n\n{part.end}{after}")


def _around(page: Path, part: Part) -> tuple[str, str]:
    """Texts before the first mark and after the second."""
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--page={page} cannot be read ({first_line(error)}): name a text"
        ) from error
    if not 0 <= text.find(part.begin) < text.find(part.end):
        raise UserError(
            f"{page} lacks the lines {part.begin} and {part.end}, between which the table goes"
        )
    before, rest = text.split(part.begin, 1)
    return before, rest.split(part.end, 1)[1]
