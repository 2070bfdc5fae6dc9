"""Timing of several processes ("sides") in turns. All are alive; one works at a time.

The protocol: a side is a command that builds, compiles and warms up its work and then prints one
line of JSON, its report. After that it answers each line on its standard input, such as "turn":
it runs one turn and prints the seconds that it took, as a line of JSON. It ends at the end of its
input.
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

PAUSE = 0.3  # seconds; OpenMP's threads spin for 0.2 s by default


class Side:
    """Process that is timed, and its report.

    Attributes:
      name: the name of the side, for results and error messages.
      process: the running process.
      stdout: the process's standard output.
    """

    def __init__(self, name: str, process: subprocess.Popen[str], errors: IO[str]):
        self.name = name
        self.process, self._errors = process, errors
        assert process.stdout
        self.stdout = process.stdout
        self._report: dict[str, Any] | None = None
        self._kill_reason = ""

    def ready(self) -> dict[str, Any]:
        """Waits until the side is ready; returns its report."""
        if self._report is None:
            self._report = self._read(dict)
        return self._report

    @property
    def report(self) -> dict[str, Any]:
        """The side's report; waits until the side is ready."""
        return self.ready()

    def give_up(self, reason: str) -> None:
        """Kills the process; later requests raise a UserError with the reason."""
        self.process.kill()
        self._kill_reason = reason

    def turn(self) -> float:
        """Runs one turn; returns its seconds by the side's own clock."""
        seconds: float = self.ask(float)
        return seconds

    def ask(self, kind: type, request: str = "turn") -> Any:
        """Sends a request; returns the answer.

        Args:
          kind: the type of the answer.
          request: the name of the request: "turn", or another one that the side answers.

        Raises:
          UserError: the side ended, or its answer has another type.
        """
        self.ready()
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended, which `_read` reports
            # Not through Python's buffer, which would write an unsent line again when closed.
            os.write(self.process.stdin.fileno(), f"{request}\n".encode())
        return self._read(kind)

    def _read(self, kind: type) -> Any:
        """Reads the next line of the process, a JSON value of type `kind`."""
        line = self.stdout.readline()
        if not line:
            status = self.process.wait()
            self._errors.seek(0)
            if self._kill_reason:
                raise self._error(self._kill_reason)
            stderr = [text.strip() for text in self._errors if text.strip()]
            last = stderr[-1] if stderr else "no message"
            raise self._error(f"ended with status {status}: {last}")
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, kind):
            raise self._error(f"said {line.strip()!r}, which is not a {kind.__name__}")
        return value

    def _error(self, description: str) -> UserError:
        return UserError(f"the {self.name} side {description}")


@contextlib.contextmanager
def started(name: str, command: Sequence[str]) -> Iterator[Side]:
    """Starts a side without waiting until it is ready; at exit closes its input and waits for it.

    Args:
      name: the name of the side.
      command: the program and its arguments.

    Yields:
      The side. Its methods raise a UserError with the last line of its standard error when the
      process has ended, or when it does not follow the protocol.

    Raises:
      UserError: the command cannot be started.
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
    """Waits until all sides are ready or have ended; kills the others after so many seconds."""
    deadline, waiting = time.monotonic() + seconds, {side.stdout: side for side in sides}
    while waiting and (remaining := deadline - time.monotonic()) > 0:
        for file in select.select(list(waiting), [], [], remaining)[0]:
            del waiting[file]
    for side in waiting.values():
        side.give_up(f"was not ready after {seconds:.0f} s: give it more time")


def take_turns(sides: Sequence[Side], turns: int, pause: float = PAUSE) -> dict[str, list[float]]:
    """Runs the sides one after the other in each turn, in reverse order in every second turn.

    Other load of the machine then affects all sides alike.

    Args:
      sides: the sides to time.
      turns: the number of turns.
      pause: the pause in seconds before each side works, in which the threads of the previous side
        stop spinning.

    Returns:
      The seconds of each turn, by the name of the side.
    """
    for side in sides:
        side.ready()
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for turn in range(turns):
        for side in reversed(sides) if turn % 2 else sides:
            time.sleep(pause)
            seconds[side.name].append(side.turn())
    return seconds


def ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Returns first / second of the seconds of each turn: below 1 where the first is faster."""
    return [a / b for a, b in zip(first, second, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the median and the quartiles of two or more values."""
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "lower_quartile": lower, "upper_quartile": upper}


def serve(report: dict[str, Any], **answers: Callable[[], Any]) -> None:
    """Answers requests until the input ends; a side calls it when it is ready.

    Args:
      report: the side's description of itself.
      answers: the function that answers each request, by the request's name. That of `turn` usually
        returns seconds.
    """
    print(json.dumps(report), flush=True)
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)
