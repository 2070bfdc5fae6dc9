"""Exceptions of a run with one-line messages: mistakes of the user, and failures of training.

A message names the value, the limit and the way out.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def first_line(error: BaseException) -> str:
    r"""First line of an exception's message, at most 200 characters, to quote in a message.

    >>> first_line(ValueError("bad shape\nin layer 3"))
    'bad shape'
    """
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def shortened(value: object, most: int = 80) -> str:
    """Text of a value, at most `most` characters long, to quote in a message.

    >>> shortened("abcdefgh", 6)
    'abc...'
    """
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Sets the file name of an OSError raised in the block to `path`.

    Errors of writing, such as a full disk, do not name their file.
    """
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


@contextmanager
def importing(package: str) -> Iterator[None]:
    """Turns any exception of an import into a UserError; a broken package may raise anything.

    Args:
      package: name of the package, for pip.

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
    r"""Escapes characters that are not printable, and joins lines.

    Messages quote file names and values from files, which could otherwise control a terminal.

    >>> printable("two\nlines \x1b[2J")
    'two lines \\x1b[2J'
    """
    line = re.sub(r"[\t\n\v\f\r]+", " ", text)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class OneLineError(Exception):
    """An error whose message is a single line of printable characters."""

    def __init__(self, text: str):
        super().__init__(printable(text))


class UserError(OneLineError):
    """A mistake that the user can fix (flag, data, workdir): exit status 2, nothing written."""


class TrainingError(OneLineError):
    """A failure of training, such as a loss that is not finite: exit status 1."""


class Paused(BaseException):
    """The end of a run that pauses at --pause_at: exit status 0. The text is a single line."""

    def __init__(self, text: str):
        super().__init__(printable(text))
