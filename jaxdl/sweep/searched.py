"""Report of a search: the steps that it took, and the picture of what it tried."""

import statistics
from pathlib import Path
from typing import Any

from jaxdl.run.search_curves import Tried, search_curves
from jaxdl.sweep import curve, grid, outcome
from jaxdl.sweep.curve import Curve
from jaxdl.sweep.ledger import Line


def is_search(lines: list[Line]) -> bool:
    """Returns True if trials have paused, or were copied from others."""
    return any(line["state"] == "paused" or "parent" in line for line in lines)


def draw(lines: list[Line], metric: str, largest: bool, picture: Path) -> str:
    """Draws the picture of a search, and returns a line on the steps that it took.

    Args:
      lines: lines of the trials, with their current states.
      metric: name of the selection metric.
      largest: whether the greatest value is the best.
      picture: PNG file to write.

    Raises:
      OSError: the picture cannot be written.
    """
    numbers = {line["trial"]: n for n, line in enumerate(lines)}
    curves = [curve.read(outcome.folder_of(line)) for line in lines]
    changed = _changed(lines, numbers)
    trials = [
        Tried(
            points=one.points,
            born=_born(line, lines, numbers),
            end=one.step,
            flags={n: v for n in changed if type(v := line["config"].get(n)) is float},
            parent=numbers.get(line.get("parent", "")),
        )
        for line, one in zip(lines, curves, strict=True)
    ]
    rungs = {line["pause_at"] for line in lines if line["state"] == "paused"}
    winners = _winners(lines, largest)
    search_curves(trials, winners, sorted(rungs), metric, largest, picture)
    return _steps(lines, trials, curves)


def _winners(lines: list[Line], largest: bool) -> list[int]:
    """Numbers of the trials with the best mean over seeds, among those that are done."""
    groups: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        if line["state"] == "done" and line["value"] is not None:
            key = line["trial"] if "parent" in line else grid.setting_of(line["config"])
            groups.setdefault(key, []).append(number)

    def mean(numbers: list[int]) -> float:
        return statistics.mean(lines[n]["value"] for n in numbers) * (-1 if largest else 1)

    return min(groups.values(), key=mean, default=[])


def _steps(lines: list[Line], trials: list[Tried], curves: list[Curve]) -> str:
    """Compares the steps taken with those of all trials to their ends."""
    taken = sum(max(0, trial.end - trial.born) for trial in trials)
    ends = [one.step for line, one in zip(lines, curves, strict=True) if line["state"] == "done"]
    if not ends:
        return f"steps: {taken:,}"
    count = sum("parent" not in line for line in lines)
    total = count * max(ends)
    return f"steps: {taken:,}, and {count} whole trials take {total:,} ({taken / total:.1%})"


def _born(line: Line, lines: list[Line], numbers: dict[str, int]) -> int:
    """Step at which a trial was copied from its parent; 0 for a trial from the beginning."""
    born: int = line.get("born", 0) if line.get("parent") in numbers else 0
    return born


def _changed(lines: list[Line], numbers: dict[str, int]) -> list[str]:
    """Names of the flags in which copies differ from their parents."""
    names: dict[str, Any] = {}
    for line in lines:
        if line.get("parent") in numbers:
            parent = lines[numbers[line["parent"]]]["config"]
            names |= {n: 0 for n, v in line["config"].items() if parent.get(n) != v}
    return list(names)
