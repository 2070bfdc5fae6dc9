"""Lines, progress bars and tables on a terminal or in a pipe, of texts that may be a stranger's.

Results go to stdout, all else to stderr.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxdl.errors import printable

Item = TypeVar("Item")
WIDTH = 20  # of a bar
LAST = ("gradient_norm", "learning_rate")  # metrics that are shown after the others
GAP = 2  # spaces between columns
NARROWEST = 12  # characters that a name is cut to
PIPE = 10_000  # columns: a pipe has no width of its own, and every cell is left whole


def say(text: str) -> None:
    """Prints one line to stderr; a reader or a terminal that is gone does not end the run."""
    with contextlib.suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)


def track(items: Iterable[Item], text: str) -> Iterator[Item]:
    """Iterates over `items` (of known length) under a bar that is gone when it is done."""
    if not sys.stderr.isatty():
        say(text)
        yield from items
        return
    with _bar(transient=True) as bar:
        yield from bar.track(items, description=printable(text))


class Training:
    """The bar of a run: steps, loss, speed, time left. Plain lines off a terminal."""

    def __init__(self, total: int, step: int, speed: Callable[[float], dict[str, float]]):
        """`speed` makes of steps a second the figures that are shown."""
        self._total, self._shown, self._speed = total, step, speed
        self._since = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = _bar(TextColumn("{task.fields[text]}", markup=False))
            self._bar.start()
            self._id = self._bar.add_task("train", total=total, completed=step, text="compiling")

    def advance(self, step: int) -> None:
        """Moves the bar to `step`."""
        self._shown = min(self._shown, step)  # a run may go back
        if self._bar:
            with contextlib.suppress(OSError):  # as in `say`, here and below
                self._bar.update(self._id, completed=step)

    def show(self, step: int, split: str, values: dict[str, float]) -> None:
        """Shows a line of metrics: training's beside the bar, an evaluation's above it."""
        names = sorted(values, key=lambda name: (name != "loss", name in LAST))
        figures = [f"{name} {number(values[name])}" for name in names]
        now = time.monotonic()
        if split == "train" and step > self._shown:
            rate = (step - self._shown) / max(now - self._since, 1e-9)
            self._shown, self._since = step, now
            figures.append(f"{number(rate)} steps/s")
            figures += _in_words(self._speed(rate))
        text = f"step {step}/{self._total}  {split}  {'  '.join(figures)}"
        if not self._bar:
            say(text)
            return
        with contextlib.suppress(OSError):
            if split == "train":
                self._bar.update(self._id, completed=step, text=self._fitting(figures))
            else:
                self._bar.print(text, highlight=False)

    def _fitting(self, figures: list[str]) -> str:
        """Returns the leading metrics that fit beside bar, steps and time left."""
        assert self._bar
        counts = 2 * len(str(self._total)) + 1
        room = self._bar.console.width - len("train") - WIDTH - counts - len("-:--:--") - 5
        text = ""
        for figure in figures:
            longer = f"{text}  {figure}" if text else figure
            if len(longer) > room:
                break
            text = longer
        return text

    def close(self) -> None:
        """Ends the bar, leaving it as it stands."""
        if self._bar:
            with contextlib.suppress(OSError):
                self._bar.stop()


def _in_words(speed: dict[str, float]) -> list[str]:
    words = [f"{number(speed['examples_per_second'])} examples/s"]
    if "share_of_peak" in speed:
        return [*words, f"{100 * speed['share_of_peak']:.1f} % of peak"]
    return [*words, f"{speed['flops_per_second'] / 1e9:.3g} GFLOP/s"]


def _bar(*columns: Any, transient: bool = False) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=WIDTH),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        *columns,
        console=console(stderr=True),
        transient=transient,
    )


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
