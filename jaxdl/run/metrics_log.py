"""The lines of `metrics.jsonl`: a step, a split, and numbers."""

import json
import math
from typing import Any

Line = dict[str, Any]
PLACES = ("step", "epoch", "split", "seconds")  # of a line: all but its metrics
LAST_STEP = 2**31 - 1


def metric_names(line: Line) -> list[str]:
    """The metrics of a line."""
    return [name for name in line if name not in PLACES]


def to_text(lines: list[Line]) -> str:
    """The lines as the file has them."""
    return "".join(json.dumps(line) + "\n" for line in lines)


def parse(text: str) -> tuple[list[Line], bool]:
    """The lines of a log up to the first that is none.

    Returns:
      The lines, and whether they are all of the text: a kill tears the last one, and a stranger's
      file may hold anything.
    """
    lines: list[Line] = []
    for row in text.splitlines():
        try:
            line = json.loads(row)
        except (ValueError, RecursionError):
            return lines, False
        if not _is_line(line):
            return lines, False
        lines.append(line)
    return lines, True


def finite(values: Line) -> Line:
    """The same with None for numbers that are not finite, which JSON has not."""
    return {k: None if v in (math.inf, -math.inf) or v != v else v for k, v in values.items()}


def _is_line(line: Any) -> bool:
    if not isinstance(line, dict) or not isinstance(line.get("split"), str):
        return False
    if not all(text.isprintable() for text in (*line, line["split"])):  # no lone surrogate, say
        return False
    step = line.get("step")
    if type(step) is not int or not 0 <= step <= LAST_STEP:
        return False
    return all(_is_number(value) for name, value in line.items() if name != "split")


def _is_number(value: Any) -> bool:
    return value is None or type(value) is float or (type(value) is int and abs(value) <= 2**63)
