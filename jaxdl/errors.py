"""The two ways a run ends badly on purpose; each message is one line that names the way out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def first_line(error: BaseException) -> str:
    """What a foreign exception says, cut to fit into a line of ours."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def shortened(value: object, most: int = 80) -> str:
    """A value of a stranger's file as a part of a line."""
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def printable(text: str) -> str:
    """The same with an escape for each character that would move a terminal's cursor or colour it.

    Names of files and fields may hold any.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Gives an OSError within it, which may not know what was being written, the path of it."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


class UserError(Exception):
    """A mistake its user can mend (flag, data, workdir): exit status 2, nothing written."""


class TrainingError(Exception):
    """Training itself failed (a loss that is not finite, say): exit status 1."""
