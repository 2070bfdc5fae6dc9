"""Runs as they show themselves in a notebook: a table, and their learning curves.

A run folder may be a stranger's: nothing in it is imported, and every text is escaped.
"""

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl import files, markup, saved_config
from jaxdl.config import RunConfig
from jaxdl.console import number
from jaxdl.errors import UserError, first_line, shortened
from jaxdl.run import curves, logger, metrics_log, run_state, workdir
from jaxdl.run.finished import SUMMARY, check_folder, run_folders
from jaxdl.run.run_state import UNREADABLE

MOST_RUNS = 500  # rows of a table
MOST_CURVES = 20  # curves in a panel
SEED = "seed"


class RunRecord(NamedTuple):
    """A run as its folder has it, running or finished.

    Attributes:
      folder: the run folder.
      config: fields of the config by name.
      lines: lines of the log.
      summary: content of `summary.json`; None before the end of the run.
      state: done, running, paused, waiting, failed, killed or unreadable.
      problem: why it is unreadable.
    """

    folder: Path
    config: dict[str, Any]
    lines: list[dict[str, Any]]
    summary: dict[str, Any] | None
    state: str
    problem: str = ""

    def results(self) -> dict[str, float]:
        """Returns the last values of the evaluations, and the summary's of test and best state."""
        values = metrics_log.last_results(self.lines)
        chosen = {n: v for n, v in (self.summary or {}).items() if n.startswith(("test/", "best/"))}
        return {n: v for n, v in (values | chosen).items() if metrics_log.is_result(v)}

    def step(self) -> int:
        """Returns the last logged step."""
        return max((line["step"] for line in self.lines), default=0)

    def _repr_html_(self) -> str:
        """Shows the run in a notebook."""
        facts = {"run": self.folder, "experiment": self.config.get("experiment", "")}
        facts |= {"step": f"{self.step():,}", "state": self.state}
        facts |= {"problem": self.problem} if self.problem else {}
        rows = [*facts.items(), *((n, number(v)) for n, v in self.results().items())]
        return markup.table(("", ""), rows, left=2) + _curves({"": self.lines})


class RunList(tuple[RunRecord, ...]):
    """Runs, which show themselves as a table and their curves."""

    def __getitem__(self, key: Any) -> Any:
        """Returns a run, or for a slice a list of runs."""
        found = super().__getitem__(key)
        return RunList(found) if isinstance(key, slice) else found

    def _repr_html_(self) -> str:
        """Shows the runs in a notebook; runs that differ only in the seed have one curve."""
        shown = self[:MOST_RUNS]
        names = curves.run_names([str(one.folder) for one in shown])
        flags, results = self._differing_flags(), [one.results() for one in shown]
        metrics = dict.fromkeys(name for values in results for name in values)
        rows = []
        for name, one, values in zip(names, shown, results, strict=True):
            cells = [one.config.get(flag, "") for flag in flags]
            cells += [number(values[metric]) if metric in values else "" for metric in metrics]
            rows.append((name, one.state, f"{one.step():,}", *cells))
        text = markup.table(("run", "state", "step", *flags, *metrics), rows)
        if len(self) > len(shown):
            text += markup.line(f"and {len(self) - len(shown):,} more runs")
        problems = [(name, one.problem) for name, one in zip(names, shown, strict=True)]
        text += "".join(markup.line(f"{n} is {UNREADABLE}: {why}") for n, why in problems if why)
        groups = self._groups(names, [flag for flag in flags if flag != SEED])
        kept = list(dict.fromkeys(groups.values()))[:MOST_CURVES]
        if len(kept) < len(set(groups.values())):
            text += markup.line(f"the first {MOST_CURVES} curves")
        pairs = zip(names, shown, strict=True)
        return text + _curves({n: one.lines for n, one in pairs if groups[n] in kept}, groups)

    def _differing_flags(self) -> list[str]:
        """Returns the fields in which the configs differ, without runtime fields."""
        configs = [one.config for one in self if one.state != UNREADABLE]
        return saved_config.differing_fields(configs, saved_config.runtime_fields(RunConfig))

    def _groups(self, names: list[str], flags: list[str]) -> dict[str, str]:
        """Returns the group of each run: its flags, or its name if the others differ in flags."""
        keys = [
            " ".join(f"{flag}={one.config.get(flag)}" for flag in flags) if one.config else None
            for one in self
        ]
        return {
            name: key if key is not None and keys.count(key) > 1 else name
            for name, key in zip(names, keys, strict=False)
        }


def read_run(folder: Path, trial: Mapping[str, Any] | None = None) -> RunRecord:
    """Reads a run of any state.

    Args:
      folder: the run folder.
      trial: the trial's line in the ledger of its sweep; empty outside a sweep. None: it is read.

    Raises:
      UserError: the folder is not a run folder, or is damaged.
    """
    workdir.check_no_links(folder)
    checkpointed = workdir.config_in_checkpoints(folder)
    config, _ = workdir.read_config(folder, checkpointed, saved_config.runtime_fields(RunConfig))
    summary = logger.read_summary(folder) if (folder / SUMMARY).exists() else None
    if trial is None:
        trial = _ledger(folder).get(folder.name, {})
    state = run_state.state_of(folder, trial)
    return RunRecord(folder, config, logger.read_metrics(folder), summary, state)


def read_runs(folders: Iterable[str | Path | Iterable[str | Path]]) -> RunList:
    """Reads the runs in folders, at most three levels below each, each run once.

    A run that is damaged is one without config, lines and summary, and says why.

    Args:
      folders: paths, or lists of paths.

    Raises:
      UserError: there is no run, or what is given is no path.
    """
    places = [path for one in folders for path in _paths(one)]
    for folder in places:
        files.check_encoding(folder.absolute())
        check_folder(folder)
    found: dict[Path, Path] = {}
    for run in (run for folder in places for run in run_folders(folder)):
        found.setdefault(run.resolve(), run)
    ledgers: dict[Path, dict[str, Any]] = {}
    runs = RunList(_record(run, ledgers) for run in found.values())
    if not runs:
        raise UserError(f"{', '.join(map(str, places))} has no run: train one first")
    return runs


def _paths(given: object) -> Iterator[Path]:
    """Yields the paths in an argument of `jaxdl.runs`: a path, or several."""
    several = [given] if isinstance(given, str | os.PathLike) else given
    if not isinstance(several, Iterable) or isinstance(several, bytes | Mapping):
        raise UserError(f"{shortened(given)} is not a path: give paths of folders")
    for one in several:
        if not isinstance(one, str | os.PathLike):
            raise UserError(f"{shortened(one)} is not a path: give paths of folders")
        yield Path(one)


def _record(folder: Path, ledgers: dict[Path, dict[str, Any]]) -> RunRecord:
    """Reads a run that may be damaged, or deleted meanwhile.

    Args:
      folder: the run folder.
      ledgers: lines of ledgers by the folder of the sweep, which this call adds to.
    """
    sweep = folder.parent.parent
    if sweep not in ledgers:
        ledgers[sweep] = _ledger(folder)
    try:
        return read_run(folder, ledgers[sweep].get(folder.name, {}))
    except (UserError, OSError) as error:
        return RunRecord(folder, {}, [], None, UNREADABLE, first_line(error))


def _ledger(folder: Path) -> dict[str, Any]:
    """Returns the lines of the ledger of a run's sweep by trial; none outside a sweep."""
    in_sweep = folder.absolute().parent.name == run_state.TRIALS
    return run_state.trials(folder.absolute().parent.parent) if in_sweep else {}


def _curves(runs: dict[str, list[dict[str, Any]]], groups: dict[str, str] | None = None) -> str:
    """Returns the learning curves as a picture; nothing for empty logs."""
    if not any(runs.values()):
        return ""
    file = io.BytesIO()
    curves.draw(runs, groups).savefig(file, format="png", dpi=110)
    return markup.picture(file.getvalue(), "learning curves")
