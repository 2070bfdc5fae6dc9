"""Parts of a measurement, one after the other: each a process that its budget ends.

A part is any command that is given its spec (see `report.Report`) as its last argument. Time that a
part leaves goes to those after it.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.benchmarks.accelerator import report

NOTICE = 0.05  # share of a budget before its end, by which a part should end by itself


class Part(NamedTuple):
    """A command, and its share of the time."""

    name: str
    share: float
    command: list[str]


def drive(parts: Sequence[Part], seconds: float, folder: Path, spec: dict[str, Any]) -> Path:
    """Runs all parts within so many seconds; returns the file of their results.

    Args:
      parts: the most important first.
      seconds: until all have ended.
      folder: has results.jsonl, and a part's output in logs/PART.txt.
      spec: what all parts are told.
    """
    results, ends = folder / "results.jsonl", time.monotonic() + seconds
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts):
        left = ends - time.monotonic()
        budget = max(left, 0) * part.share / sum(other.share for other in parts[number:])
        until = time.monotonic() + budget * (1 - NOTICE)
        told = spec | {"results": str(results.absolute()), "until": until}
        began, log = time.monotonic(), folder / "logs" / f"{part.name}.txt"
        status = run([*part.command, json.dumps(told)], budget, log)
        took = round(time.monotonic() - began, 1)
        text, state = ended(status, budget, log)
        report.append(results, {"name": part.name, "state": state, "text": text, "seconds": took})
    return results


def run(command: Sequence[str], budget: float, log: Path) -> int | None:
    """The exit status of a command; None: its budget [seconds] ended it.

    Whatever it started is ended with it, in time or not.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return process.wait(timeout=budget)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end_group(process.pid)
        process.wait()


def end_group(group: int) -> None:
    """Kills a process group; it may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def ended(status: int | None, budget: float, log: Path) -> tuple[str, str]:
    """Returns a line about the end of a part, and its state."""
    if status == 0:
        return "ended by itself", report.DONE
    if status is None:
        return f"ended at its budget of {budget:.0f} s", report.STOPPED
    text = log.read_text(encoding="utf-8", errors="replace")
    said = [line.strip() for line in text.splitlines() if line.strip()]
    how = (
        f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    )
    return f"{how}: {said[-1][:200] if said else 'no word'}", report.FAILED
