"""Results of a sweep: a table of its combinations, best first, and plots of the metric by flag."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jaxdl import saved_config
from jaxdl.analysis import comparison
from jaxdl.console import console, row, table
from jaxdl.errors import UserError, first_line, printable
from jaxdl.run import curves
from jaxdl.sweep import ledger, outcome, searched
from jaxdl.sweep.grid import SEED
from jaxdl.sweep.ledger import Ledger, Line


class Group(NamedTuple):
    """Trials of one combination of flags, which differ only in the seed.

    Attributes:
      varied: values of the flags in which groups differ.
      trials: number of trials, done or not.
      values: validation metric of each trial that is done, by seed.
      tested: test metric of each trial that is done, by seed.
      paused: validation metric of each trial that has paused, by seed.
      step: the last step of its trials.
    """

    varied: dict[str, str]
    trials: int
    values: dict[int, float]
    tested: dict[int, float]
    paused: dict[int, float]
    step: int


def report(folder: Path, picture: Path) -> None:
    """Prints one row per combination, best first, and plots the metric against each flag.

    Of a search, trials that have paused follow those that are done, the later step first, and the
    picture has the curves of all trials.

    Metrics are those of the best state on validation: the mean over seeds and, for more than one
    seed, its 95 % t interval. Letters tell which combinations differ on validation. The best one is
    bold if it differs from all others.

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
        raise UserError(
            f"{folder} has trials of several metrics ({', '.join(sorted(metrics))}): name those of "
            "one metric, as runs in its trials/"
        )
    metric, searches = next(iter(metrics), "validation"), searched.is_search(lines)
    largest = not done or done[0]["better"] == "max"
    names = _differing(lines)
    groups = sorted(_groups(lines, names), key=lambda group: _rank(group, largest))
    marks = comparison.marks([group.values for group in groups])
    lettered = ["letters"] if any(marks.letters) else []
    stepped = ["step"] if searches else []
    columns = (*names, "done", *stepped, metric, *lettered, metric.replace("validation", "test"))
    rows = table(columns, left=0)
    for number, (group, letters) in enumerate(zip(groups, marks.letters, strict=True)):
        count = f"{len(group.values)}/{group.trials}"
        cells = [*group.varied.values(), count, *([f"{group.step:,}"] if searches else [])]
        cells += [figure(group.values or group.paused)]
        cells += [letters] if lettered else []
        is_bold = marks.is_best and number == 0
        row(rows, [*cells, figure(group.tested)], style="bold" if is_bold else "")
    output = console()
    output.print(rows)
    if marks.note and done:
        output.print(marks.note, soft_wrap=True)
    states = [line["state"] for line in lines]
    counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    output.print(printable(f"{folder}: {counts}"), soft_wrap=True)
    if not done:
        return
    try:
        if searches:
            output.print(searched.draw(lines, metric, largest, picture), soft_wrap=True)
        else:
            _plot(lines, groups, names, metric, picture)
    except OSError as error:
        raise UserError(f"--output={picture} cannot be written: {first_line(error)}") from error
    output.print(printable(f"picture: {picture}"), soft_wrap=True)


def _plot(
    lines: list[Line], groups: list[Group], names: list[str], metric: str, picture: Path
) -> None:
    """Plots the metric against each flag in which the groups differ, or against the seed."""
    panels = {name: [(g.varied[name], [*g.values.values()]) for g in groups] for name in names}
    done = [line for line in lines if line["value"] is not None]
    seeds = [(str(line["config"].get(SEED)), [line["value"]]) for line in done]
    curves.metric_vs_hyperparameters(panels or {SEED: seeds}, metric, picture)


def _current(line: Line) -> Line:
    """Current state of a trial; the ledger may be out of date if its driver was killed."""
    state = line["state"]
    if state in ("done", "paused") or (state == "running" and not ledger.is_running(line)):
        state = "stopped"
    return outcome.result(line) or {"state": state, "value": None}


def _differing(lines: list[Line]) -> list[str]:
    """Flags in which trials differ, except the seed."""
    return saved_config.differing_fields([line["config"] for line in lines], [SEED])


def _groups(lines: list[Line], names: list[str]) -> list[Group]:
    """Groups trials by their values of the flags `names`; a copy of another trial is alone."""
    groups: dict[tuple[str, ...], Group] = {}
    for line in lines:
        varied = {name: str(line["config"].get(name)) for name in names}
        key = (*varied.values(), line["trial"] if "parent" in line else "")
        group = groups.get(key, Group(varied, 0, {}, {}, {}, 0))
        step = max(group.step, line.get("step", 0))
        groups[key] = group._replace(trials=group.trials + 1, step=step)
        found = group.paused if line["state"] == "paused" else group.values
        for values, value in ((found, line["value"]), (group.tested, line.get("tested"))):
            if value is not None:  # a ledger without seeds has one trial of each combination
                seed = line["config"].get(SEED)
                values[seed if type(seed) is int else 0] = value
    return list(groups.values())


def _rank(group: Group, largest: bool) -> tuple[bool, int, float]:
    """Rank of a group: those that are done by their mean, then the others by step and mean."""
    values = group.values or group.paused
    mean = statistics.mean(values.values()) * (-1 if largest else 1) if values else math.inf
    return not group.values, 0 if group.values else -group.step, mean


def figure(values: Mapping[int, float]) -> str:
    """Mean over seeds and, for more than one seed, its 95 % t interval.

    >>> figure({0: 0.9919, 1: 0.9914, 2: 0.9925})
    '0.99193 [0.99057, 0.99330]'
    """
    if not values:
        return "-"
    if len(values) < 2:
        return f"{next(iter(values.values())):.4g}"
    mean, interval, _ = comparison.texts(values)
    return mean if interval == "-" else f"{mean} {interval}"
