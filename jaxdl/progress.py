"""Progress on stderr: bars where it is a terminal, plain lines where it is not."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxdl.console import console, number
from jaxdl.errors import printable

Item = TypeVar("Item")
WIDTH = 20  # of a bar
LAST = ("gradient_norm", "learning_rate")  # metrics that are shown after the others


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
