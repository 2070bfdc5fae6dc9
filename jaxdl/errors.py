"""The two ways a run ends badly on purpose; each message is one line that names the way out."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def first_line(error: BaseException) -> str:
    """First line of a foreign exception, cut to fit into a line of ours."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def shortened(value: object, most: int = 80) -> str:
    """A value of a stranger's file as a part of a line."""
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Gives an OSError within it, which may not know what was being written, the path of it."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


@contextmanager
def importing(package: str) -> Iterator[None]:
    """Around imports of an installed package, for which a broken installation raises anything.

    Raises:
      UserError: the package cannot be imported.
    """
    try:
        yield
    except Exception as error:
        raise UserError(
            f"{package} cannot be imported ({first_line(error)}): install it again, by "
            f"pip install --force-reinstall {package}"
        ) from error


def printable(text: str) -> str:
    """The text in one line, with an escape for each character that a terminal may not print.

    Names of files and values in them end up in messages, and could move a terminal's cursor.
    """
    line = re.sub(r"[\t\n\v\f\r]+", " ", text)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class OneLineError(Exception):
    """An error whose message is a single line of printable characters."""

    def __init__(self, text: str):
        super().__init__(printable(text))


class UserError(OneLineError):
    """A mistake its user can mend (flag, data, workdir): exit status 2, nothing written."""


class TrainingError(OneLineError):
    """Training itself failed (a loss that is not finite, say): exit status 1."""
