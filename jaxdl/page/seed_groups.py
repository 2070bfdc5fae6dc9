"""Groups of runs that differ only in the seed, with means, intervals and letters."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdl.analysis import comparison
from jaxdl.page.run_record import Run
from jaxdl.tools.records import RUNTIME_FIELDS, SEED

Fields = Mapping[str, Any]


def members(runs: Sequence[Run], configs: Sequence[Fields]) -> list[list[int]]:
    """Numbers of the runs of each group.

    A copy of another trial is alone, and so is a run without a config. Runs of other data with the
    same flags are another group; a run whose data are not known yet belongs to the first one.

    Args:
      runs: the runs.
      configs: fields of their configs.
    """
    groups: dict[str, list[int]] = {}
    for number, (run, config) in enumerate(zip(runs, configs, strict=True)):
        decisive = {n: v for n, v in config.items() if n not in (*RUNTIME_FIELDS, SEED)}
        alone = number if "parent" in run.place.trial or not config else None
        groups.setdefault(json.dumps([decisive, alone], sort_keys=True), []).append(number)
    return [part for group in groups.values() for part in _by_data(group, runs)]


def _by_data(group: list[int], runs: Sequence[Run]) -> list[list[int]]:
    """Parts of a group by the fingerprint of the data."""
    known = list(dict.fromkeys(runs[n].data for n in group if runs[n].data[1]))
    if len(known) < 2:
        return [group]
    return [
        [n for n in group if (runs[n].data if runs[n].data[1] else known[0]) == data]
        for data in known
    ]


def summarized(
    groups: Sequence[Sequence[int]],
    runs: Sequence[Run],
    seeds: Sequence[Any],
    results: Sequence[Mapping[str, float]],
    metrics: Sequence[str],
) -> list[dict[str, list[Any]]]:
    """Means of each group's runs that are done.

    Args:
      groups: numbers of the runs of each group.
      runs: the runs.
      seeds: seed of each run.
      results: results of each run by metric.
      metrics: names of the metrics.

    Returns:
      For each group by metric: the mean and its 95 % t interval as texts, the mean as a number, and
      the number of runs.
    """
    rows = []
    for group in groups:
        row = {}
        for metric in metrics:
            own = _values(group, runs, seeds, results, metric)
            if own:
                mean, interval, _ = comparison.texts(own)
                row[metric] = [mean, interval, math.fsum(own.values()) / len(own), len(own)]
        rows.append(row)
    return rows


def letters(
    groups: Sequence[Sequence[int]],
    runs: Sequence[Run],
    seeds: Sequence[Any],
    results: Sequence[Mapping[str, float]],
    metric: str,
    better: str,
) -> tuple[list[str], str]:
    """Letters that tell which groups differ in a metric, and a line that explains them.

    Args:
      groups: numbers of the runs of each group.
      runs: the runs.
      seeds: seed of each run.
      results: results of each run by metric.
      metric: name of the metric.
      better: max or min.
    """
    values = [_values(group, runs, seeds, results, metric) for group in groups]
    sign = -1 if better == "max" else 1
    order = [n for n, own in enumerate(values) if own]
    order.sort(key=lambda n: sign * math.fsum(values[n].values()) / len(values[n]))
    marks = comparison.marks([values[n] for n in order])
    found = [""] * len(groups)
    for n, text in zip(order, marks.letters, strict=True):
        found[n] = text
    return found, marks.note


def _values(
    group: Sequence[int],
    runs: Sequence[Run],
    seeds: Sequence[Any],
    results: Sequence[Mapping[str, float]],
    metric: str,
) -> dict[int, float]:
    """Values of a group's runs that are done, by seed; two runs of a seed are one observation."""
    return {
        seeds[n] if type(seeds[n]) is int else -n - 1: float(results[n][metric])
        for n in group
        if runs[n].state == "done" and metric in results[n]
    }
