"""Runs the parts of a measurement one after the other, each within a budget of time.

A part is any command that takes its spec (see `report.Report`) as its last argument. A part that
exceeds its budget is killed. Time that a part does not use goes to the parts after it.
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

NOTICE = 0.05  # a part should end by itself when this share of its budget is left


class Part(NamedTuple):
    """Command of a part, and its share of the time."""

    name: str
    share: float
    command: list[str]


def drive(parts: Sequence[Part], seconds: float, folder: Path, spec: dict[str, Any]) -> Path:
    """Runs all parts; returns the file of their results.

    Args:
      parts: the parts, the most important first.
      seconds: the time limit for all parts together.
      folder: the folder for results.jsonl, and for the output of each part in logs/PART.txt.
      spec: the spec that all parts have in common.
    """
    results, deadline = folder / "results.jsonl", time.monotonic() + seconds
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts):
        remaining = deadline - time.monotonic()
        budget = max(remaining, 0) * part.share / sum(p.share for p in parts[number:])
        until = time.monotonic() + budget * (1 - NOTICE)
        part_spec = spec | {"results": str(results.absolute()), "until": until}
        began, log = time.monotonic(), folder / "logs" / f"{part.name}.txt"
        status = run([*part.command, json.dumps(part_spec)], budget, log)
        elapsed = round(time.monotonic() - began, 1)
        text, state = ended(status, budget, log)
        line = {"name": part.name, "state": state, "text": text, "seconds": elapsed}
        report.append(results, line)
    return results


def run(command: Sequence[str], budget: float, log: Path) -> int | None:
    """Runs a command, and at the end kills all processes that it has started.

    Args:
      command: the program and its arguments.
      budget: the time limit in seconds.
      log: the file for its output.

    Returns:
      The exit status, or None if the command was killed at the end of its budget.
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
    """Kills a process group, if it still exists."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def ended(status: int | None, budget: float, log: Path) -> tuple[str, str]:
    """Returns a line that describes the end of a part, and the part's state."""
    if status == 0:
        return "ended by itself", report.DONE
    if status is None:
        return f"ended at its budget of {budget:.0f} s", report.STOPPED
    text = log.read_text(encoding="utf-8", errors="replace")
    output = [line.strip() for line in text.splitlines() if line.strip()]
    end = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return f"ended {end}: {output[-1][:200] if output else 'no message'}", report.FAILED
