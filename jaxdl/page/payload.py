"""Content of a page: runs, their groups over seeds, curves, lineage and pictures, as plain JSON.

`payload` depends on nothing but the files in the folders, so a page that was kept up to date while
a sweep ran ends with the same content as one that is made afterwards.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.analysis import statistics
from jaxdl.errors import UserError
from jaxdl.page import curve_points, run_images, run_record, seed_groups
from jaxdl.page.discovery import places
from jaxdl.page.run_record import Kept, Run, fields, scalar, text_of
from jaxdl.run.metrics_log import is_result
from jaxdl.run.run_state import UNREADABLE
from jaxdl.tools.records import RUNTIME_FIELDS, SEED

VALUES = 800_000  # of all curves together
MOST_INTERVALS, FEWEST_INTERVALS = 300, 16  # of a curve
MOST_METRICS = 60
PICTURES, PICTURE_BYTES = 80, 1_500_000  # of all runs together
MOST_SEEDS = 40  # with a quantile of their own
FIRST = ("step", "seconds")  # columns that a table begins with, after the results
ORDER = ("best/validation/", "best/test/", "test/", "validation/", "train/")


# Long: the docstring names all entries.
def payload(folders: list[Path], kept: Kept | None = None) -> dict[str, Any]:
    """Content of a page.

    Args:
      folders: run folders, folders of sweeps, or folders that hold such.
      kept: what earlier calls have read; files that have not changed are not read again.

    Returns:
      Entries that `json.dumps` writes, with printable texts and finite numbers:

      - `name`, `folder`: name and path of the folder that holds all runs;
      - `runs`: by run `name`, `state`, `notes`, `group`, `config` (fields in which runs differ),
        `results`, `curves`, `facts` (those in which runs differ), `data`, `digests`, `command`,
        `lineage` and `pictures`;
      - `config`, `facts`: the fields that all runs have in common;
      - `flags`: names of the fields that decide results and in which runs differ, without the seed;
      - `metrics`: names of results, the most important first; `metric`, `better`: the main one;
      - `groups`: runs that differ only in the seed: `flags`, `runs`, `letters` and, by metric,
        `results`: mean and 95 % interval as texts, the mean, and the number of runs;
      - `note`: line on the differences between groups that tests support;
      - `steps`: lists of steps, which `at` of a curve numbers;
      - `quantiles`: 97.5 % quantiles of Student's t by degrees of freedom, from 1 on.

    Raises:
      UserError: the folders hold no run, or none that can be read.
    """
    found = places(folders)
    if not found:
        raise UserError(f"{folders[0]} has no run: train one first")
    kept = {} if kept is None else kept
    runs = [run_record.read(place, kept) for place in found]
    if all(run.state == UNREADABLE for run in runs):
        raise UserError(runs[0].notes[0])
    names, root = _names(runs, folders)
    configs = [dict(fields(run.config)) for run in runs]
    common, differing = _common([one for one in configs if one] or configs)
    results = [_results(run.summary) for run in runs]
    metric, better = _main_metric(runs, results)
    for run, one in zip(runs, results, strict=True):
        _add_best(run, one, metric, better)
    metrics = _ordered({name for one in results for name in one}, metric)
    flags = [n for n in differing if n not in (*RUNTIME_FIELDS, SEED)]
    groups, note = _groups(runs, configs, results, flags, metrics, better)
    facts = [{text_of(n, 80): text_of(v) for n, v in run.facts.items()} for run in runs]
    same_facts, other_facts = _common(facts)
    curves, steps = _curves(runs)
    columns: dict[str, Sequence[Any]] = {
        "name": names,
        "group": _numbers(groups, len(runs)),
        "config": [{n: one[n] for n in differing if n in one} for one in configs],
        "results": results,
        "curves": curves,
        "facts": [{n: one[n] for n in other_facts if n in one} for one in facts],
        "lineage": _lineage(runs),
        "pictures": _pictures(runs, [one.get(metric) for one in results], better, kept),
    }
    return {
        "name": text_of(root.name or str(root), 200),
        "folder": text_of(root, 1000),
        "config": common,
        "facts": same_facts,
        "flags": flags,
        "metrics": metrics,
        "metric": metric,
        "better": better,
        "quantiles": _quantiles(),
        "runs": [
            _entry(run) | {key: column[n] for key, column in columns.items()}
            for n, run in enumerate(runs)
        ],
        "groups": groups,
        "note": note,
        "steps": steps,
    }


def _entry(run: Run) -> dict[str, Any]:
    """Entries of a run that do not depend on the others."""
    return {
        "state": run.state,
        "notes": [text_of(text, 400) for text in run.notes],
        "data": list(run.data),
        "digests": dict(run.digests),
        "command": run_record.command(run.config),
    }


def _groups(
    runs: Sequence[Run],
    configs: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, float]],
    flags: Sequence[str],
    metrics: Sequence[str],
    better: str,
) -> tuple[list[dict[str, Any]], str]:
    """Groups of runs that differ only in the seed, and a line on their differences."""
    groups = seed_groups.members(runs, configs)
    seeds = [config.get(SEED) for config in configs]
    values = {name: seed_groups.values(groups, runs, seeds, results, name) for name in metrics}
    main = values[metrics[0]] if metrics else [{} for _ in groups]
    letters, note = seed_groups.letters(main, better)
    entries = [
        {
            "flags": {n: configs[one[0]][n] for n in flags if n in configs[one[0]]},
            "runs": one,
            "results": {
                name: seed_groups.summarized(own[n]) for name, own in values.items() if own[n]
            },
            "letters": letters[n],
        }
        for n, one in enumerate(groups)
    ]
    return entries, note


def _numbers(groups: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """Number of the group of each run."""
    numbers = [0] * count
    for number, group in enumerate(groups):
        for n in group["runs"]:
            numbers[n] = number
    return numbers


def to_json(content: dict[str, Any]) -> str:
    """JSON text of a payload, in ASCII and without spaces."""
    return json.dumps(content, allow_nan=False, separators=(",", ":"))


def _names(runs: Sequence[Run], folders: Sequence[Path]) -> tuple[list[str], Path]:
    """Names of the runs, relative to the folder that holds all of them, and this folder."""
    paths = [os.path.abspath(run.place.folder) for run in runs]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = [text_of(os.path.relpath(path, root), 200) for path in paths]
    place = Path(os.path.abspath(folders[0])) if len(folders) == 1 else Path(root)
    return names, place


def _common(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Entries that all rows share, and the names of the others."""
    names = dict.fromkeys(name for row in rows for name in row)
    missing = object()
    values = {name: {repr(row.get(name, missing)) for row in rows} for name in names}
    differing = [name for name in names if len(values[name]) > 1]
    return {n: v for n, v in rows[0].items() if n not in differing}, differing


def _results(summary: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a summary by printable name."""
    numbers = [(name, value) for name, value in summary.items() if is_result(value)]
    return {text_of(name, 80): scalar(value) for name, value in numbers[:MOST_METRICS]}  # type: ignore[misc]


def _main_metric(runs: Sequence[Run], results: Sequence[Mapping[str, float]]) -> tuple[str, str]:
    """Name of the metric that most runs select their best state by, and max or min."""
    chosen = [
        (text_of(run.summary["best_metric"], 80), str(run.summary.get("better")))
        for run in runs
        if run.state == "done" and run.summary.get("best_metric")
    ]
    selected, better = max(sorted(set(chosen)), key=chosen.count, default=("", ""))
    better = better if better in ("max", "min") else ""
    names = {name for one in results for name in one}
    wanted = [f"{part}{selected}" for part in ORDER if selected]
    wanted += [f"{part}{metric}" for part in ORDER for metric in ("accuracy", "return", "loss")]
    first = next((name for name in (*wanted, *sorted(names)) if name in names), "")
    low = first.endswith(("loss", "error", "perplexity", "rmse", "mae", "elbo"))
    return first, better or ("min" if low else "max")


def _add_best(run: Run, results: dict[str, float], metric: str, better: str) -> None:
    """Adds the best value so far of a run that is not done, if the main metric is of validation."""
    if metric in results or not metric.startswith("best/validation/"):
        return
    points = run.curves.get(metric.removeprefix("best/"))
    if points is not None and not np.isnan(points.values).all():
        best = np.nanmax if better == "max" else np.nanmin
        results[metric] = float(best(points.values))


def _ordered(names: set[str], metric: str) -> list[str]:
    """Names of results: the main one, its like on the test split, times, and the others."""
    base = metric.rpartition("/")[2]

    def rank(name: str) -> tuple[int, int, str]:
        part = next((n for n, start in enumerate(ORDER) if name.startswith(start)), len(ORDER))
        if name == metric or (name.rpartition("/")[2] == base and name.startswith(ORDER[:3])):
            return 0 if name == metric else 1, part, name
        return (2 if name in FIRST else 3), part, name

    return sorted(names, key=rank)[:MOST_METRICS]


def _curves(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Curves of each run, reduced to fit a page, and the lists of steps that they number."""
    count = sum(len(run.curves) for run in runs)
    most = min(MOST_INTERVALS, max(FEWEST_INTERVALS, VALUES // (4 * count or 1)))
    steps: dict[tuple[int, ...], int] = {}
    rows = []
    for run in runs:
        row: dict[str, Any] = {}
        for name, points in run.curves.items():
            curve = curve_points.reduced(points, most)
            at = steps.setdefault(tuple(curve.pop("steps")), len(steps))
            row[text_of(name, 80)] = {"at": at, **curve}
        rows.append(row)
    return rows, [list(one) for one in steps]


def _lineage(runs: Sequence[Run]) -> list[dict[str, Any] | None]:
    """For each trial of a search its parent's number, birth, generation, member and last step."""
    numbers = {run.place.folder: n for n, run in enumerate(runs)}
    rows: list[dict[str, Any] | None] = []
    for run in runs:
        line = run.place.trial
        if not ({"pause_at", "parent", "step", "generation"} & line.keys()):
            rows.append(None)
            continue
        last = max((int(p.steps[-1]) for p in run.curves.values()), default=0)
        parent = numbers.get(run.place.folder.parent / line["parent"]) if "parent" in line else None
        entries: dict[str, Any] = {
            n: line[n] for n in ("born", "generation", "member", "pause_at") if n in line
        }
        rows.append({"parent": parent, "end": last, **entries})
    is_search = any(run.state == "paused" or "parent" in run.place.trial for run in runs)
    return rows if is_search else [None] * len(runs)


def _pictures(
    runs: Sequence[Run], values: Sequence[float | None], better: str, kept: Kept
) -> list[dict[str, str]]:
    """Pictures of each run by name, those of the best runs first, as far as they fit a page."""
    sign = -1 if better == "max" else 1
    best = sorted(range(len(runs)), key=lambda n: (values[n] is None, sign * (values[n] or 0), n))
    chosen: list[dict[str, str]] = [{} for _ in runs]
    count, size = 0, 0
    for number in [n for n in best if runs[n].state != UNREADABLE]:
        for name, path in run_images.names(runs[number].place.folder).items():
            image = run_record.kept_content(kept, path, run_images.encoded) or ""
            if count >= PICTURES or size + len(image) > PICTURE_BYTES:
                return chosen
            if image:
                chosen[number][text_of(name, 80)] = image
                count, size = count + 1, size + len(image)
    return chosen


def _quantiles() -> list[float]:
    """97.5 % quantiles of Student's t distribution for 1 to `MOST_SEEDS` - 1 degrees of freedom."""
    from scipy import stats

    return [round(float(stats.t.ppf(1 - statistics.ALPHA / 2, n)), 4) for n in range(1, MOST_SEEDS)]
