"""Results in a short table, for a terminal of 100 columns."""

import textwrap
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.accelerator import report

WIDTH = 100
COUNTED = ("runs", "checks")  # parts of which only what is not well has a row of its own


def render(results: Sequence[dict[str, Any]]) -> str:
    """A row for each figure and each thing that is not well, under its part's."""
    lines = []
    for part in [line for line in results if "/" not in line["name"] and "state" in line]:
        last = {line["name"]: line for line in results}  # of a result written again, the last
        own = [line for name, line in last.items() if name.startswith(f"{part['name']}/")]
        well = sum(line["state"] == report.DONE for line in own)
        lines.append(
            f"{part['name']}: {well} of {len(own)} done in {part['seconds']:.0f} s, {part['text']}"
        )
        late = sum(line["text"] == report.NO_TIME for line in own)
        lines += [
            _row(line, part["name"])
            for line in own
            if line["text"] != report.NO_TIME
            and (line["state"] != report.DONE or part["name"] not in COUNTED)
        ]
        lines += [f"  and {late} more, for which {report.NO_TIME}"] if late else []
    return "\n".join(lines)


def _row(line: dict[str, Any], part: str) -> str:
    name, state = line["name"].removeprefix(f"{part}/"), line["state"]
    text = line["text"] if state == report.DONE else f"{state.upper()}: {line['text']}"
    return textwrap.fill(f"{name}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    ")
