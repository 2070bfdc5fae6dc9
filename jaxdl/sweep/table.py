"""Results of a sweep: a table of its combinations, best first, and plots of the metric by flag."""

import json
import math
import statistics
from pathlib import Path
from typing import NamedTuple

from jaxdl.console import console, row, table
from jaxdl.errors import UserError, first_line, printable
from jaxdl.run import curves
from jaxdl.sweep import ledger
from jaxdl.sweep.ledger import Ledger, Line

SEED = "seed"


class Group(NamedTuple):
    """Trials of one combination of flags, which differ only in the seed.

    Attributes:
      varied: values of the flags in which groups differ.
      trials: number of trials, done or not.
      values: validation metric of each trial that is done.
      tested: test metric of each trial that is done.
    """

    varied: dict[str, str]
    trials: int
    values: list[float]
    tested: list[float]


def report(folder: Path, picture: Path) -> None:
    """Prints one row per combination, best first, and plots the metric against each flag.

    Metrics are those of the best state on validation: the mean over seeds and, for more than one
    seed, its standard error.

    Args:
      folder: the sweep's folder.
      picture: PNG file to write.

    Raises:
      UserError: the folder holds no sweep, or the picture cannot be written.
    """
    lines = [line | _current(line) for line in Ledger.read(folder).lines.values()]
    done = [line for line in lines if line["value"] is not None]
    metrics = {line["metric"] for line in done}
    if len(metrics) > 1:
        raise UserError(f"{folder} has trials of several metrics ({', '.join(sorted(metrics))})")
    metric = next(iter(metrics), "validation")
    largest = not done or done[0]["better"] == "max"
    names = _differing(lines)
    groups = sorted(_groups(lines, names), key=lambda group: _rank(group, largest))
    rows = table((*names, "done", metric, metric.replace("validation", "test")), left=0)
    for group in groups:
        count = f"{len(group.values)}/{group.trials}"
        cells = [*group.varied.values(), count, _figure(group.values), _figure(group.tested)]
        row(rows, cells)
    output = console()
    output.print(rows)
    states = [line["state"] for line in lines]
    counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    output.print(printable(f"{folder}: {counts}"), soft_wrap=True)
    if done:
        panels = {name: [(g.varied[name], g.values) for g in groups] for name in names}
        seeds = [(str(line["config"].get(SEED)), [line["value"]]) for line in done]
        try:
            curves.metric_vs_hyperparameters(panels or {SEED: seeds}, metric, picture)
        except OSError as error:
            raise UserError(f"--output={picture} cannot be written: {first_line(error)}") from error
        output.print(printable(f"picture: {picture}"), soft_wrap=True)


def _current(line: Line) -> Line:
    """Current state of a trial; the ledger may be out of date if its driver was killed."""
    state = line["state"]
    if state == "done" or (state == "running" and not ledger.is_running(line)):
        state = "stopped"
    return ledger.result(line) or {"state": state, "value": None}


def _differing(lines: list[Line]) -> list[str]:
    """Flags in which trials differ, except the seed."""
    names = dict.fromkeys(name for line in lines for name in line["config"])
    values_of = {n: {json.dumps(line["config"].get(n)) for line in lines} for n in names}
    return [name for name, values in values_of.items() if len(values) > 1 and name != SEED]


def _groups(lines: list[Line], names: list[str]) -> list[Group]:
    """Groups trials by their values of the flags `names`."""
    groups: dict[tuple[str, ...], Group] = {}
    for line in lines:
        varied = {name: str(line["config"].get(name)) for name in names}
        key = tuple(varied.values())
        group = groups.get(key, Group(varied, 0, [], []))
        groups[key] = group._replace(trials=group.trials + 1)
        for values, value in ((group.values, line["value"]), (group.tested, line.get("tested"))):
            if value is not None:
                values.append(value)
    return list(groups.values())


def _rank(group: Group, largest: bool) -> float:
    if not group.values:
        return math.inf
    return statistics.mean(group.values) * (-1 if largest else 1)


def _figure(values: list[float]) -> str:
    if not values:
        return "-"
    text = f"{statistics.mean(values):.4g}"
    if len(values) < 2:
        return text
    return f"{text} ± {statistics.stdev(values) / math.sqrt(len(values)):.2g}"
