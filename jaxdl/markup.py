"""HTML for notebooks: tables and pictures. Texts may come from a stranger, so all are escaped."""

import base64
import html
from collections.abc import Iterable, Sequence

from jaxdl.errors import printable, shortened

LONGEST = 200  # characters of a cell


def text(value: object) -> str:
    """Returns a value as escaped text of one line.

    >>> text("<script>")
    '&lt;script&gt;'
    """
    return html.escape(printable(shortened(value, LONGEST)))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> str:
    """Returns a table.

    Args:
      columns: names of the columns.
      rows: cells of each row.
      left: number of leading columns that are aligned to the left; the others are to the right.
    """

    def cells(tag: str, values: Sequence[object]) -> str:
        sides = ["left" if n < left else "right" for n in range(len(values))]
        pairs = zip(sides, values, strict=True)
        return "".join(f'<{tag} style="text-align:{side}">{text(v)}</{tag}>' for side, v in pairs)

    head = f"<tr>{cells('th', columns)}</tr>"
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def line(value: object) -> str:
    """Returns a line of text."""
    return f"<div>{text(value)}</div>"


def picture(png: bytes, about: str) -> str:
    """Returns a picture with its bytes inside.

    Args:
      png: the bytes of a PNG.
      about: text in its place where it cannot be shown.
    """
    data = base64.b64encode(png).decode()
    style = "max-width:100%;background:white"
    return f'<img style="{style}" alt="{text(about)}" src="data:image/png;base64,{data}">'


def progress(done: int, total: int, about: str) -> str:
    """Returns a progress bar with a text beside it."""
    bar = f'<progress value="{done:d}" max="{total:d}" style="width:16em"></progress>'
    return f"<div>{bar} {done:,d}/{total:,d} {text(about)}</div>"
