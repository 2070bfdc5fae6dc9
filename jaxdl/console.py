"""Tables on a terminal or in a pipe, of texts that may come from a stranger's files."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from jaxdl.errors import printable

GAP = 2  # spaces between columns
NARROWEST = 12  # characters that a name is cut to
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


def number(value: float) -> str:
    """A number with four digits that count: 15,590 and 0.8125 and 3e-05."""
    if value != value or abs(value) == float("inf") or abs(value) >= 1e15:
        return f"{value:.4g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def cut(name: str, most: int) -> str:
    """A name of at most so many characters, without its middle where it is longer."""
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}\N{HORIZONTAL ELLIPSIS}{name[len(name) - end :]}"


def show(columns: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1) -> None:
    """Prints a table to stdout: on a terminal as wide as that is, with no figure cut.

    There names are cut in the middle, and columns that have no room left out, from the right; a
    line says which.
    """
    output = console()
    names = [printable(name) for name in columns]
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    wide = [max((len(line[n]) for line in cells), default=0) for n in range(len(names))]
    if sum(max(w, len(name)) + GAP for w, name in zip(wide, names, strict=True)) > output.width:
        names = [cut(name, max(w, NARROWEST)) for w, name in zip(wide, names, strict=True)]
        rest = sum(max(w, len(n)) + GAP for w, n in zip(wide[1:3], names[1:3], strict=True))
        most = max(NARROWEST, min(output.width // 3, output.width - rest))
        cells = [[cut(line[0], most), *line[1:]] for line in cells]
    widths = [
        max(len(name), *(len(line[n]) for line in cells)) + GAP for n, name in enumerate(names)
    ]
    fits = sum(sum(widths[: n + 1]) <= output.width + GAP for n in range(len(names)))
    made = table(names[:fits], left=left)
    for line in cells:
        made.add_row(*line[:fits])
    output.print(made)
    if fits < len(names):
        lacking = ", ".join(printable(name) for name in columns[fits:])
        output.print(f"no room for {lacking}: use a wider terminal, or a pipe", soft_wrap=True)
