"""Lines of `metrics.jsonl`: a step, a split and metrics, as dictionaries and as text.

`logger` writes and reads the file. A run folder may be a stranger's, so lines are checked here.
"""

import json
import math
from typing import Any

Line = dict[str, Any]
NON_METRICS = ("step", "epoch", "split", "seconds")  # fields of a line that are not metrics
LAST_STEP = 2**31 - 1  # the greatest int32
LARGEST = 1e100  # largest size of a result: squares of larger ones may overflow


def metric_names(line: Line) -> list[str]:
    """Returns the names of a line's metrics.

    >>> metric_names({"step": 3, "split": "train", "loss": 0.5, "seconds": 1.0})
    ['loss']
    """
    return [name for name in line if name not in NON_METRICS]


def last_results(lines: list[Line]) -> Line:
    """Returns the last value of each metric of evaluations, named as in a summary.

    >>> last_results([{"step": n, "split": "test", "loss": 1 / n} for n in (1, 2)])
    {'test/loss': 0.5}
    """
    found: Line = {}
    for line in lines:
        if line["split"] != "train":
            found |= {f"{line['split']}/{name}": line[name] for name in metric_names(line)}
    return found


def to_text(lines: list[Line]) -> str:
    """Returns the text of a log, one JSON object per line."""
    return "".join(json.dumps(line) + "\n" for line in lines)


def parse(text: str) -> tuple[list[Line], bool]:
    r"""Parses a log up to the first invalid line.

    A kill may tear the last line, and a stranger's file may hold anything.

    Args:
      text: content of the file.

    Returns:
      The lines, and whether all of the text is valid.

    >>> parse('{"step": 1, "split": "train", "loss": 0.5}\n{"step": 2, "sp')
    ([{'step': 1, 'split': 'train', 'loss': 0.5}], False)
    """
    lines: list[Line] = []
    decode = json.JSONDecoder().decode
    for row in text.splitlines():
        try:
            line = decode(row)
        except (ValueError, RecursionError):
            return lines, False
        if not _is_line(line):
            return lines, False
        lines.append(line)
    return lines, True


def finite(values: Line) -> Line:
    """Replaces numbers that are not finite by None, because JSON lacks them.

    >>> finite({"loss": math.inf, "accuracy": 0.5})
    {'loss': None, 'accuracy': 0.5}
    """
    return {k: None if v in (math.inf, -math.inf) or v != v else v for k, v in values.items()}


def is_result(value: Any) -> bool:
    """Returns True for a number whose mean and variance can be computed.

    >>> is_result(0.5), is_result(math.nan), is_result(True), is_result(10**400)
    (True, False, False, False)
    """
    return type(value) in (int, float) and abs(value) <= LARGEST


def _is_line(line: Any) -> bool:
    """Returns True if a JSON value is a line of a log."""
    if not isinstance(line, dict) or not isinstance(split := line.get("split"), str):
        return False
    if not "".join((*line, split)).isprintable():  # such as a lone surrogate
        return False
    step = line.get("step")
    if type(step) is not int or not 0 <= step <= LAST_STEP:
        return False
    for name, value in line.items():
        if type(value) is float or value is None or name == "split":
            continue
        if type(value) is not int or abs(value) > 2**63:
            return False
    return True
