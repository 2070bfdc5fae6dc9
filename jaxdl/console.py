"""Tables on a terminal or in a pipe, of texts that may come from a stranger's files."""

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from jaxdl.errors import printable

PIPE = 10_000  # columns: a pipe has no width of its own, and every cell is left whole


def console(stderr: bool = False) -> Console:
    """A console that takes no text for markup: `[/red]` in a file's name is printed as it is."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def table(columns: Iterable[str], *, left: int = 1) -> Table:
    """An empty table; the first `left` columns are aligned to the left, the others to the right."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for number, name in enumerate(columns):
        side = "left" if number < left else "right"
        made.add_column(printable(name), justify=side, overflow="fold")  # type: ignore[arg-type]
    return made


def row(table: Table, cells: Iterable[object]) -> None:
    """Adds a row; characters that would act on a terminal are escaped."""
    table.add_row(*(printable(str(cell)) for cell in cells))
