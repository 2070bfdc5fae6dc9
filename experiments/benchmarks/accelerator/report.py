"""Results of a measurement: lines of results.jsonl, each on disk before the next thing is begun."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxdl.errors import UserError, first_line

DONE, FAILED, STOPPED, SKIPPED = "done", "failed", "stopped", "skipped"
NO_TIME = "no time was left"
Result = str | tuple[str, dict[str, Any]]  # one line, and further fields of the record


class OutOfTimeError(BaseException):
    """A measurement took longer than it may; no `except Exception` on its way holds it back."""


class Report:
    """Time limit, selection and results of one part.

    Attributes:
      rehearse: measure in small, on a CPU.
      spec: all that the part is told; `results` is the file, `until` a time of `time.monotonic`.
    """

    def __init__(self, spec: dict[str, Any]):
        self.spec, self.rehearse = spec, bool(spec["rehearse"])
        self._path, self._until = Path(spec["results"]), float(spec["until"])

    def left(self) -> float:
        """Seconds until the part is ended."""
        return self._until - time.monotonic()

    def add(self, name: str, text: str, state: str = DONE, **fields: Any) -> None:
        """Writes a result: `text` is one line for the table, `fields` are kept with it."""
        line = {"name": name, "state": state, "text": " ".join(text.split()), **fields}
        line["time"] = round(time.time(), 1)
        append(self._path, line | ({"rehearsal": True} if self.rehearse else {}))

    def attempt(self, name: str, measure: Callable[[], Result], *, limit: float = 0) -> bool:
        """Writes the result of `measure`, or why there is none; returns whether there is one.

        Args:
          name: `PART/...`; where --only leaves it out, nothing is done.
          measure: returns a line, or a line and further fields.
          limit: seconds on a card after which it is given up; 0: when the part's time is over.
        """
        if not chosen(name, self.spec["only"]):
            return False
        left, began = self.left(), time.monotonic()
        if left <= 0:
            self.add(name, NO_TIME, SKIPPED)
            return False
        try:
            with time_limit(left if self.rehearse else min(limit or left, left)):
                found = measure()
        except OutOfTimeError:
            self.add(name, f"given up after {time.monotonic() - began:.0f} s", STOPPED)
            return False
        except Exception as error:  # whatever it is, the next measurement may succeed
            self.add(name, f"{type(error).__name__}: {first_line(error)}", FAILED)
            return False
        text, fields = (found, {}) if isinstance(found, str) else found
        self.add(name, text, seconds=round(time.monotonic() - began, 2), **fields)
        return True


def append(path: Path, line: dict[str, Any]) -> None:
    """Adds a line to a file that several processes write, and waits until it is on disk."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
        os.fsync(file)
    finally:
        os.close(file)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of results.jsonl; what a kill left half-written at its end is no line.

    Raises:
      UserError: it cannot be read, or a line before is no result.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        lines = [json.loads(line) for line in whole if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): measure again") from error
    if not all(isinstance(line, dict) and isinstance(line.get("name"), str) for line in lines):
        raise UserError(f"{path} has lines that are no results: measure again")
    return lines


def chosen(name: str, only: str) -> bool:
    """True if `only`, prefixes between commas, selects a result or the part that contains it."""
    return any(name.startswith(s) or s.startswith(f"{name}/") for s in starts(only) or [""])


def starts(only: str) -> list[str]:
    """The prefixes of `only`."""
    return [start.strip() for start in only.split(",") if start.strip()]


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTimeError in the main thread's Python code after so many seconds."""

    def give_up(*_: Any) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
