"""Short table of the results, for a terminal of 100 columns."""

import textwrap
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.accelerator import report

WIDTH = 100
COUNTED = ("runs", "checks")  # parts whose successful results are only counted


def render(results: Sequence[dict[str, Any]]) -> str:
    """Returns the table: a row for each part, and below it for each figure and each failure."""
    lines = []
    for part in [line for line in results if "/" not in line["name"] and "state" in line]:
        latest = {line["name"]: line for line in results}  # a later result replaces an earlier one
        own = [line for name, line in latest.items() if name.startswith(f"{part['name']}/")]
        done = sum(line["state"] == report.DONE for line in own)
        lines.append(
            f"{part['name']}: {done} of {len(own)} done in {part['seconds']:.0f} s, {part['text']}"
        )
        no_time = sum(line["text"] == report.NO_TIME for line in own)
        lines += [
            _row(line, part["name"])
            for line in own
            if line["text"] != report.NO_TIME
            and (line["state"] != report.DONE or part["name"] not in COUNTED)
        ]
        lines += [f"  and {no_time} more, for which {report.NO_TIME}"] if no_time else []
    return "\n".join(lines)


def _row(line: dict[str, Any], part: str) -> str:
    name, state = line["name"].removeprefix(f"{part}/"), line["state"]
    text = line["text"] if state == report.DONE else f"{state.upper()}: {line['text']}"
    return textwrap.fill(f"{name}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    ")
