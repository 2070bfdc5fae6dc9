"""Sides that are timed in turns: each a process of its own, alive together, one at work at a time.

A side is any command that builds, compiles and warms up what it times, prints a line of JSON about
itself, and then answers each line it reads by one turn and a line with the seconds that it took. It
ends when there is nothing more to read.
"""

import contextlib
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from jaxdl.errors import UserError

PAUSE = 0.3  # seconds; OpenMP's threads spin for 0.2 where nothing else is said


class Side:
    """A side: its process, and what it says about itself."""

    def __init__(self, name: str, process: subprocess.Popen[str], errors: IO[str]):
        self.name = name
        self.process, self._errors = process, errors
        assert process.stdout
        self.said = process.stdout
        self._report: dict[str, Any] | None = None
        self._given_up = ""

    def ready(self) -> dict[str, Any]:
        """Waits until it is; returns what it says about itself."""
        if self._report is None:
            self._report = self._hear(dict)
        return self._report

    @property
    def report(self) -> dict[str, Any]:
        """Its own description; waits until it is ready."""
        return self.ready()

    def give_up(self, why: str) -> None:
        """Ends it; whoever asks it for anything is told why."""
        self.process.kill()
        self._given_up = why

    def turn(self) -> float:
        """Has it do one turn; returns the seconds that it took by its own clock."""
        seconds: float = self.ask(float)
        return seconds

    def ask(self, kind: type, what: str = "turn") -> Any:
        """Has it do one turn, or what else it can; returns the value of that kind it answers."""
        self.ready()
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # it is dead, and that is said below
            # Past Python's buffer: what is left in it would be written again at the end.
            os.write(self.process.stdin.fileno(), f"{what}\n".encode())
        return self._hear(kind)

    def _hear(self, kind: type) -> Any:
        """The next line of the side's, a JSON value of that kind."""
        line = self.said.readline()
        if not line:
            status = self.process.wait()
            self._errors.seek(0)
            if self._given_up:
                raise self._fault(self._given_up)
            said = [text.strip() for text in self._errors if text.strip()]
            raise self._fault(f"ended with status {status}: {said[-1] if said else 'no word'}")
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, kind):
            raise self._fault(f"said {line.strip()!r}, which is no {kind.__name__}")
        return value

    def _fault(self, what: str) -> UserError:
        return UserError(f"the {self.name} side {what}")


@contextlib.contextmanager
def started(name: str, command: Sequence[str]) -> Iterator[Side]:
    """Starts a side, without waiting for it; at the end closes its input, and waits for that.

    Raises:
      UserError: it cannot be started. Asked for anything, a side raises it where it has died or
        says what is not of a side; with its last word.
    """
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        )
        try:
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=errors, encoding="utf-8"
            )
        except OSError as error:
            raise UserError(f"{command[0]} cannot be started ({error.strerror})") from error
        stack.enter_context(process)
        try:
            yield Side(name, process, errors)
        except BaseException:
            process.kill()
            raise


def wait(sides: Sequence[Side], seconds: float) -> None:
    """Waits until all are ready or have ended; after so many seconds, kills those that are not."""
    until, waiting = time.monotonic() + seconds, {side.said: side for side in sides}
    while waiting and (left := until - time.monotonic()) > 0:
        for file in select.select(list(waiting), [], [], left)[0]:
            del waiting[file]
    for side in waiting.values():
        side.give_up(f"was not ready after {seconds:.0f} s: give it more time")


def take_turns(sides: Sequence[Side], turns: int, pause: float = PAUSE) -> dict[str, list[float]]:
    """Seconds of each turn, by the side's name: one side after the other, every second turn back.

    What the machine does meanwhile, it does to all of them. Before each there is a pause of so many
    seconds, in which the threads of the side before it stop spinning in wait for more work.
    """
    for side in sides:
        side.ready()
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for turn in range(turns):
        for side in reversed(sides) if turn % 2 else sides:
            time.sleep(pause)
            seconds[side.name].append(side.turn())
    return seconds


def ratios(first: Sequence[float], other: Sequence[float]) -> list[float]:
    """Ratios of the seconds of each turn: below 1 where the first is faster."""
    return [mine / theirs for mine, theirs in zip(first, other, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of two values or more."""
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "lower_quartile": lower, "upper_quartile": upper}


def serve(report: dict[str, Any], **answers: Callable[[], Any]) -> None:
    """The other half, called by a side that is ready: answers until its input ends.

    Args:
      report: what it says about itself.
      answers: what it can be asked for; `turn` returns its seconds, for the most part.
    """
    print(json.dumps(report), flush=True)
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)
