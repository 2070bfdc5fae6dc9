"""A sweep's results: its combinations, best first, over their seeds, and a picture of each flag."""

import math
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from jaxdl import plots, record
from jaxdl.errors import UserError, first_line
from jaxdl.sweep import ledger
from jaxdl.sweep.ledger import Ledger, Line

SEED = "seed"


class Group(NamedTuple):
    """Trials that differ in the seed alone."""

    varied: dict[str, str]  # without the seed
    trials: int
    values: list[float]  # of the metric, of those that are done
    tested: list[float]  # the same metric of the same states on the test split


def report(folder: Path, picture: Path) -> None:
    """Prints a row a combination, best first, and draws the metric against each flag.

    Figures are of the best state on validation: the mean over seeds and, of more than one, its
    standard error.

    Raises:
      UserError: the folder holds no sweep, or the picture cannot be written.
    """
    lines = [line | (ledger.result(line) or {}) for line in Ledger.read(folder).lines.values()]
    done = [line for line in lines if line.get("value") is not None]
    metrics = {line["metric"] for line in done}
    if len(metrics) > 1:
        raise UserError(f"{folder} has trials of several metrics ({', '.join(sorted(metrics))})")
    metric = next(iter(metrics), "validation")
    largest = not done or done[0]["better"] == "max"
    groups = sorted(_groups(lines), key=lambda group: _rank(group, largest))
    names = list(dict.fromkeys(name for group in groups for name in group.varied))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in (*names, "done", metric, metric.replace("validation", "test")):
        table.add_column(name, justify="right")
    for group in groups:
        cells = [group.varied.get(name, "-") for name in names]
        count = f"{len(group.values)}/{group.trials}"
        table.add_row(*cells, count, _figure(group.values), _figure(group.tested))
    # A pipe has no width of its own: leave every cell whole there.
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    console.print(table)
    states = [line["state"] for line in lines]
    counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    console.print(f"{folder}: {counts}", highlight=False, soft_wrap=True)
    if done:
        try:
            plots.against(
                {
                    name: [(g.varied[name], g.values) for g in groups if name in g.varied]
                    for name in names
                }
                or {SEED: [(line["varied"].get(SEED, "-"), [line["value"]]) for line in done]},
                metric,
                picture,
            )
        except OSError as error:
            raise UserError(f"--output={picture} cannot be written: {first_line(error)}") from error
        console.print(f"picture: {picture}", highlight=False, soft_wrap=True)


def _groups(lines: list[Line]) -> list[Group]:
    found: dict[tuple[tuple[str, str], ...], Group] = {}
    for line in lines:
        varied = {name: value for name, value in line["varied"].items() if name != SEED}
        group = found.setdefault(tuple(varied.items()), Group(varied, 0, [], []))
        found[tuple(varied.items())] = group._replace(trials=group.trials + 1)
        if line.get("value") is not None:
            group.values.append(line["value"])
            tested = _tested(line)
            if tested is not None:
                group.tested.append(tested)
    return list(found.values())


def _tested(line: Line) -> Any:
    summary = record.read_json(Path(line["workdir"]) / "summary.json")
    return summary.get(f"best/{line['metric'].replace('validation', 'test')}")


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
