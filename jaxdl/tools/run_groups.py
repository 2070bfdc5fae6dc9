"""Groups of runs that differ only in the seed, from run folders and from published rows.

Run folders and files of published rows may be a stranger's: nothing in them is imported, and values
that are not as a run writes them are refused.
"""

import glob
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl import files, saved_config
from jaxdl.data import spec
from jaxdl.errors import UserError, shortened
from jaxdl.run import logger, metrics_log
from jaxdl.run.finished import finished_runs
from jaxdl.tools import records
from jaxdl.tools.records import RUNTIME_FIELDS, SEED, read_config

DATASET = "dataset"


class Result(NamedTuple):
    """Result of a run.

    Attributes:
      where: the run folder, or the file and the seed of a published row.
      seed: the run's seed.
      config: the fields of the config; empty for a published row.
      summary: content of the run's summary.
      data: name of the data set.
      fingerprint: fingerprint of the data set; empty if unknown.
    """

    where: str
    seed: int
    config: dict[str, Any]
    summary: dict[str, Any]
    data: str
    fingerprint: str

    @property
    def is_agent(self) -> bool:
        """Returns True for an agent, whose runs in several environments are one group."""
        return any(name.endswith("/return") for name in self.summary)


class Group(NamedTuple):
    """Runs that differ only in the seed; those of an agent may differ in the environment too.

    Attributes:
      name: the argument that named the runs.
      flags: the flags in which the groups differ, with their values.
      runs: results of the runs.
    """

    name: str
    flags: str
    runs: list[Result]


def read_groups(arguments: Sequence[str]) -> list[Group]:
    """Reads the runs that arguments name, and groups those of each argument.

    Args:
      arguments: run folders, folders of runs, patterns of folders, or published rows.

    Returns:
      The groups. An argument gives one for each combination of flags.

    Raises:
      UserError: an argument names no finished run, or a result cannot be read.
    """
    named = [(argument, group) for argument in arguments for group in grouped(_results(argument))]
    flags = different_flags([group[0].config for _, group in named])
    return [Group(name, text, group) for (name, group), text in zip(named, flags, strict=True)]


def grouped(results: Iterable[Result]) -> list[list[Result]]:
    """Groups results by their config, without the seed, and an agent's without the environment.

    Raises:
      UserError: a group has a seed twice on the same data.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        ignored = {*RUNTIME_FIELDS, SEED, *([DATASET] if result.is_agent else [])}
        key = json.dumps(
            {name: v for name, v in result.config.items() if name not in ignored}, sort_keys=True
        )
        group = groups.setdefault(key, [])
        for other in group:
            if (other.seed, other.data) == (result.seed, result.data):
                raise UserError(
                    f"{other.where} and {result.where} have the same flags and seed "
                    f"{result.seed}, so they are one observation: leave one of them out"
                )
        group.append(result)
    return list(groups.values())


def different_flags(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describes for each config the flags in which the configs differ, `name=value`."""
    known = [config for config in configs if config]
    shown = saved_config.differing_fields(known, {*RUNTIME_FIELDS, SEED})
    return [
        " ".join(f"{shortened(n, 30)}={shortened(c[n], 30)}" for n in shown if n in c)
        for c in configs
    ]


def _results(argument: str) -> list[Result]:
    """Reads the results that an argument names."""
    if Path(argument).is_dir():
        return [read_result(folder) for folder in finished_runs(Path(argument))]
    folders = [Path(path) for path in sorted(glob.glob(argument)) if Path(path).is_dir()]
    if folders:
        return [read_result(run) for folder in folders for run in finished_runs(folder)]
    name, _, flags = argument.partition(":")
    path = records.published_file(name)
    if path is None:
        raise UserError(
            f"{argument} is neither a folder of runs, nor a pattern of folders, nor a published "
            "row: name EXPERIMENT or EXPERIMENT:FLAGS of experiments/results/"
        )
    return _read_rows(path, flags)


def read_result(folder: Path) -> Result:
    """Reads the result of a finished run from its folder.

    Raises:
      UserError: the folder is not what a run wrote.
    """
    return make_result(folder, read_config(folder), logger.read_summary(folder))


def make_result(folder: Path, config: dict[str, Any], summary: dict[str, Any]) -> Result:
    """Result of a run from its folder, config and summary.

    Raises:
      UserError: the config has no seed, or the description of the data cannot be read.
    """
    data, fingerprint = "", ""
    if (folder / spec.NAME).exists():
        description = files.read_json(folder / spec.NAME)
        data, fingerprint = (str(description.get(name, "")) for name in ("name", "fingerprint"))
    seed = records.checked_seed(config.get(SEED), folder)
    return Result(str(folder), seed, config, summary, data, fingerprint)


def _read_rows(path: Path, flags: str) -> list[Result]:
    """Reads a published row: the runs with these flags.

    Args:
      path: file of results.
      flags: the row's flags in any order; empty for the row without flags.

    Raises:
      UserError: the file is not one of results, or has no such row.
    """
    rows: dict[tuple[str, ...], list[Result]] = {}
    for row in records.read_file(path).rows:
        results = rows.setdefault(tuple(sorted(row.flags)), [])
        for run in row.entries:
            data, fingerprint = run.data["name"], run.data["fingerprint"]
            results.append(Result(run.where, run.seed, {}, run.summary, data, fingerprint))
    wanted = tuple(sorted(flags.split()))
    if wanted not in rows:
        others = "; ".join(" ".join(row) or "no flags" for row in rows)
        raise UserError(
            f"{path} has no row of {flags or 'no flags'}: choose one of {shortened(others, 600)}"
        )
    return rows[wanted]


def metric_of(summaries: Sequence[Mapping[str, Any]], wanted: str) -> str:
    """Chooses the entry of the summaries that is compared.

    Args:
      summaries: summaries of all runs.
      wanted: name of an entry, such as best/test/accuracy, or of a metric of the test split, such
        as accuracy; empty: the metric that selected the best state, else the first one.

    Raises:
      UserError: not all runs have it.
    """
    names = [
        n for n in summaries[0] if all(metrics_log.is_result(other.get(n)) for other in summaries)
    ]
    if wanted:
        candidates = [wanted, f"test/{wanted}"]
    else:
        selected = {str(summary.get("best_metric", "")) for summary in summaries}
        best = selected.pop() if len(selected) == 1 else ""
        tested = [name for name in names if name.startswith("test/")]
        first = [name for name in tested if name != "test/loss"]
        candidates = [f"test/{best}", *first, *tested, f"best/test/{best}"]
    for name in candidates:
        if name in names:
            return name
    available = ", ".join(name for name in names if "/" in name)
    missing = f"--metric={wanted}" if wanted else "metric of the test split"
    raise UserError(
        f"not all of these runs have a finite {missing}: "
        + (f"all have {shortened(available, 600)}" if available else "none is common to all")
    )
