"""Groups of runs that differ only in the seed, with means, intervals and letters."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdl.analysis import comparison
from jaxdl.page.run_record import Run
from jaxdl.tools.records import RUNTIME_FIELDS, SEED

Fields = Mapping[str, Any]
Values = Mapping[int, float]  # of the runs of a group, by seed


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


def values(
    groups: Sequence[Sequence[int]],
    runs: Sequence[Run],
    seeds: Sequence[Any],
    results: Sequence[Mapping[str, float]],
    metric: str,
) -> list[Values]:
    """Values of each group's runs that are done; two runs of a seed are one observation.

    Args:
      groups: numbers of the runs of each group.
      runs: the runs.
      seeds: seed of each run.
      results: results of each run by metric.
      metric: name of the metric.
    """
    return [
        {
            seeds[n] if type(seeds[n]) is int else -n - 1: float(results[n][metric])
            for n in group
            if runs[n].state == "done" and metric in results[n]
        }
        for group in groups
    ]


def summarized(own: Values) -> list[Any]:
    """Mean of a group and its 95 % t interval as texts, the mean, and the number of runs."""
    mean, interval, _ = comparison.texts(own)
    return [mean, interval, _mean(own), len(own)]


def letters(groups: Sequence[Values], better: str) -> tuple[list[str], str]:
    """Letters that tell which groups differ in a metric, and a line that explains them.

    Args:
      groups: values of each group; a group without any has no letter.
      better: max or min.
    """
    sign = -1 if better == "max" else 1
    order = [n for n, own in enumerate(groups) if own]
    order.sort(key=lambda n: sign * _mean(groups[n]))
    marks = comparison.marks([groups[n] for n in order])
    found = [""] * len(groups)
    for n, text in zip(order, marks.letters, strict=True):
        found[n] = text
    return found, marks.note


def _mean(own: Values) -> float:
    return math.fsum(own.values()) / len(own)
