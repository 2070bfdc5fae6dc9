"""Lines, progress bars and tables for a terminal or a pipe.

Results go to stdout, all else to stderr. Texts may come from untrusted files: characters that would
act on a terminal are escaped.
"""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxdl import notebook
from jaxdl.errors import Paused, printable
from jaxdl.signals import Stopped

Item = TypeVar("Item")
WIDTH = 20  # characters of a progress bar
LAST = ("gradient_norm", "learning_rate")  # metrics shown after the others
GAP = 2  # spaces between columns
NARROWEST = 12  # least number of characters of a shortened name
PIPE = 10_000  # columns of a pipe: wide enough to leave every cell whole


def say(text: str) -> None:
    """Prints one line to stderr; a closed pipe or terminal does not end the run."""
    with contextlib.suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)


def track(items: Iterable[Item], text: str) -> Iterator[Item]:
    """Iterates over items with a progress bar, which disappears at the end.

    Args:
      items: the items, of known length.
      text: description in front of the bar; printed as a line if stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        say(text)
        yield from items
        return
    with _bar(transient=True) as bar:
        yield from bar.track(items, description=printable(text))


class Training:
    """Progress of a run: a bar with metrics and speed in a terminal or a notebook, else lines."""

    def __init__(self, total: int, step: int, speed: Callable[[float], dict[str, float]]):
        """Starts the bar.

        Args:
          total: steps of the run.
          step: steps that are done.
          speed: steps per second -> entries such as `examples_per_second`.
        """
        self._total, self._shown, self._step, self._speed = total, step, step, speed
        self._last_time = time.monotonic()
        self._bar: Any = None
        if notebook.is_active():
            self._bar = notebook.Bar()
        elif sys.stderr.isatty():
            self._bar = _bar(TextColumn("{task.fields[text]}", markup=False))
        if self._bar:
            self._bar.start()
            self._id = self._bar.add_task("train", total=total, completed=step, text="compiling")

    def advance(self, step: int) -> None:
        """Moves the bar to `step`."""
        self._shown, self._step = min(self._shown, step), step  # a rewind goes back
        if self._bar:
            with contextlib.suppress(OSError):  # as in `say`, here and below
                self._bar.update(self._id, completed=step)

    def show(self, step: int, split: str, values: dict[str, float]) -> None:
        """Shows metrics: those of training beside the bar, those of an evaluation above it.

        Args:
          step: current step.
          split: train, or the name of the evaluated split.
          values: metrics by name.
        """
        names = sorted(values, key=lambda name: (name != "loss", name in LAST))
        figures = [f"{name} {number(values[name])}" for name in names]
        now = time.monotonic()
        if split == "train" and step > self._shown:
            rate = (step - self._shown) / max(now - self._last_time, 1e-9)
            self._shown, self._last_time = step, now
            figures.append(f"{number(rate)} steps/s")
            figures += _speed_texts(self._speed(rate))
        text = f"step {step}/{self._total}  {split}  {'  '.join(figures)}"
        if not self._bar:
            say(text)
            return
        with contextlib.suppress(OSError):
            if split == "train":
                self._bar.update(self._id, completed=step, text=self._fit(figures))
            else:
                self._bar.print(text, highlight=False)

    def _fit(self, figures: list[str]) -> str:
        """Joins the leading metrics that fit beside bar, steps and time left."""
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

    def close(self, end: str = "") -> None:
        """Stops the bar and leaves it on the screen.

        Args:
          end: how the run ended, such as `failed`, shown in place of the metrics; empty for none.
        """
        if self._bar:
            with contextlib.suppress(OSError):
                if end:
                    self._bar.update(self._id, completed=self._step, text=end)
                self._bar.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Closes the bar; after an exception it shows how the run ended."""
        if kind is None:
            self.close()
        elif issubclass(kind, Paused):
            self.close("paused")
        else:
            self.close("stopped" if issubclass(kind, (Stopped, KeyboardInterrupt)) else "failed")


def _speed_texts(speed: dict[str, float]) -> list[str]:
    texts = [f"{number(speed['examples_per_second'])} examples/s"]
    if "share_of_peak" in speed:
        return [*texts, f"{100 * speed['share_of_peak']:.1f} % of peak"]
    return [*texts, f"{speed['flops_per_second'] / 1e9:.3g} GFLOP/s"]


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
    """Creates a console without markup: `[/red]` in a file's name is printed as it is."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def table(columns: Iterable[str], *, left: int = 1) -> Table:
    """Creates an empty table.

    Args:
      columns: names of the columns.
      left: number of leading columns that are aligned to the left; the others are to the right.
    """
    empty = Table(box=None, header_style="bold", pad_edge=False)
    for number, name in enumerate(columns):
        side = "left" if number < left else "right"
        empty.add_column(printable(name), justify=side, overflow="fold")  # type: ignore[arg-type]
    return empty


def row(table: Table, cells: Iterable[object], style: str = "") -> None:
    """Adds a row to a table, in a style such as bold; escapes characters that act on a terminal."""
    table.add_row(*(printable(str(cell)) for cell in cells), style=style)


def number(value: float) -> str:
    """Formats a number with four significant digits.

    >>> number(15590.2), number(0.8125), number(3e-5)
    ('15,590', '0.8125', '3e-05')
    """
    if value != value or abs(value) == float("inf") or abs(value) >= 1e15:
        return f"{value:.4g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def decimals(value: float, error: float) -> str:
    """Formats a number with the decimals of the first two digits of its error.

    >>> decimals(0.991933, 0.00027), decimals(45.18, 1.4), decimals(500.0, 0.0)
    ('0.99193', '45.2', '500')
    """
    if not error > 0:
        return f"{value:.6g}"
    return f"{value:.{min(max(1 - math.floor(math.log10(error)), 0), 12)}f}"


def cut(name: str, most: int) -> str:
    """Shortens a name to at most `most` characters by replacing its middle by an ellipsis.

    >>> cut("validation/accuracy", 9)
    'vali…racy'
    """
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}\N{HORIZONTAL ELLIPSIS}{name[len(name) - end :]}"


def show(columns: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1) -> None:
    """Prints a table to stdout, fitted to the width of the terminal.

    If the table is too wide, names are shortened in the middle, then columns are left out from the
    right, and a line lists them. Numbers are never shortened. A pipe gets the whole table.

    Args:
      columns: names of the columns.
      rows: cells of each row.
      left: number of leading columns that are aligned to the left.
    """
    output = console()
    names = [printable(name) for name in columns]
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    wide = [max((len(line[n]) for line in cells), default=0) for n in range(len(names))]
    if sum(max(w, len(name)) + GAP for w, name in zip(wide, names, strict=True)) > output.width:
        names = [cut(name, max(w, NARROWEST)) for w, name in zip(wide, names, strict=True)]
        # The first column leaves room for the next two.
        next_two = sum(max(w, len(n)) + GAP for w, n in zip(wide[1:3], names[1:3], strict=True))
        most = max(NARROWEST, min(output.width // 3, output.width - next_two))
        cells = [[cut(line[0], most), *line[1:]] for line in cells]
    widths = [
        max(len(name), *(len(line[n]) for line in cells)) + GAP for n, name in enumerate(names)
    ]
    fits = sum(sum(widths[: n + 1]) <= output.width + GAP for n in range(len(names)))
    fitted = table(names[:fits], left=left)
    for line in cells:
        fitted.add_row(*line[:fits])
    output.print(fitted)
    if fits < len(names):
        omitted = ", ".join(printable(name) for name in columns[fits:])
        output.print(f"no room for {omitted}: use a wider terminal, or a pipe", soft_wrap=True)
