"""Results of a measurement: lines of results.jsonl, each on disk before the next one begins."""

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
Result = str | tuple[str, dict[str, Any]]  # a line of text, or that and more fields of the record


class OutOfTimeError(BaseException):
    """Exception for a measurement beyond its time limit; `except Exception` does not catch it."""


class Report:
    """Time limit, selection and results of one part.

    Attributes:
      rehearse: whether to measure small sizes on a CPU.
      spec: the part's settings. `results` is the file of results; `until` is the time limit, as a
        value of `time.monotonic`.
    """

    def __init__(self, spec: dict[str, Any]):
        self.spec, self.rehearse = spec, bool(spec["rehearse"])
        self._path, self._until = Path(spec["results"]), float(spec["until"])

    def left(self) -> float:
        """Returns the seconds until the time limit of the part."""
        return self._until - time.monotonic()

    def add(self, name: str, text: str, state: str = DONE, **fields: Any) -> None:
        """Writes a result.

        Args:
          name: the name of the result, `PART/...`.
          text: a line of text for the table.
          state: one of DONE, FAILED, STOPPED and SKIPPED.
          **fields: more fields of the record.
        """
        line = {"name": name, "state": state, "text": " ".join(text.split()), **fields}
        line["time"] = round(time.time(), 1)
        append(self._path, line | ({"rehearsal": True} if self.rehearse else {}))

    def attempt(self, name: str, measure: Callable[[], Result], *, limit: float = 0) -> bool:
        """Measures and writes the result, or the reason why there is none.

        Args:
          name: the name of the result, `PART/...`; nothing is done if --only does not select it.
          measure: returns a line of text, or a line and more fields of the record.
          limit: the time limit in seconds on an accelerator; 0: the rest of the part's time.

        Returns:
          True if the measurement succeeded.
        """
        if not chosen(name, self.spec["only"]):
            return False
        left, began = self.left(), time.monotonic()
        if left <= 0:
            self.add(name, NO_TIME, SKIPPED)
            return False
        try:
            with time_limit(left if self.rehearse else min(limit or left, left)):
                result = measure()
        except OutOfTimeError:
            self.add(name, f"given up after {time.monotonic() - began:.0f} s", STOPPED)
            return False
        except Exception as error:  # the next measurement may succeed
            self.add(name, f"{type(error).__name__}: {first_line(error)}", FAILED)
            return False
        text, fields = (result, {}) if isinstance(result, str) else result
        self.add(name, text, seconds=round(time.monotonic() - began, 2), **fields)
        return True


def append(path: Path, line: dict[str, Any]) -> None:
    """Appends a line to a file shared by several processes, and waits until it is on disk."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
        os.fsync(file)
    finally:
        os.close(file)


def read(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of results.jsonl, without a half-written line at the end.

    Raises:
      UserError: the file cannot be read, or a line is not a result.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        complete = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        lines = [json.loads(line) for line in complete if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): measure again") from error
    if not all(isinstance(line, dict) and isinstance(line.get("name"), str) for line in lines):
        raise UserError(f"{path} has lines that are not results: measure again")
    return lines


def chosen(name: str, only: str) -> bool:
    """Returns whether `only`, comma-separated prefixes, selects a result or a part.

    A part is selected with each of its results: "steps" by the prefix "steps/vgg16".
    """
    return any(name.startswith(s) or s.startswith(f"{name}/") for s in starts(only) or [""])


def starts(only: str) -> list[str]:
    """Returns the prefixes in `only`."""
    return [prefix.strip() for prefix in only.split(",") if prefix.strip()]


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises an OutOfTimeError in the Python code of the main thread after so many seconds."""

    def give_up(*_: Any) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
