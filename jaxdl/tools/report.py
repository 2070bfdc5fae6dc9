"""The `report` command: a table of runs and a picture of their learning curves."""

from collections import Counter
from pathlib import Path
from typing import Any

from jaxdl import saved_config
from jaxdl.analysis import comparison
from jaxdl.console import console, say, show
from jaxdl.errors import UserError, printable, shortened
from jaxdl.run import curves, logger, metrics_log
from jaxdl.run.finished import SUMMARY, check_output
from jaxdl.tools.run_groups import (
    RUNTIME_FIELDS,
    different_flags,
    grouped,
    make_result,
    metric_of,
    read_config,
)

BAND = 3  # seeds from which on a group is drawn as a mean with a band


def report(folders: list[Path], picture: Path) -> None:
    """Prints a table with one row per run, and plots the runs' curves.

    Columns are a test result, the hyperparameters in which the runs differ, and the other entries
    of their summaries.

    Args:
      folders: run folders.
      picture: PNG file to write.

    Raises:
      UserError: one of `folders` is not a run folder.
    """
    check_output(picture, "output", ".png")
    configs = [read_config(folder) for folder in folders]
    differing = saved_config.differing_fields(configs, RUNTIME_FIELDS)
    finished = {
        folder: logger.read_summary(folder) for folder in folders if (folder / SUMMARY).exists()
    }
    summaries = [_summary(folder, finished.get(folder)) for folder in folders]
    names = dict.fromkeys(name for summary in summaries for name in summary)
    # A result comes first: a narrow terminal has room only for the first columns.
    results = sorted((name for name in names if "/" in name), key=lambda n: n[:5] != "test/")
    leading, trailing = results[:1], [name for name in names if name not in results[:1]]
    rows = []
    for folder, config, summary in zip(folders, configs, summaries, strict=True):
        values = [summary.get(name) for name in leading]
        values += [config.get(name) for name in differing]
        values += [summary.get(name) for name in trailing]
        rows.append((folder, *map(_cell, values)))
    show(("run", *leading, *differing, *trailing), rows)
    _show_groups(dict(zip(folders, configs, strict=True)), finished)
    output = console()
    runs = {str(folder): logger.read_metrics(folder) for folder in folders}
    if any(runs.values()):
        try:
            curves.curves(runs, picture, _seed_groups(folders, configs))
        except OSError as error:
            raise UserError(f"--output={picture} cannot be written: {error.strerror}") from error
        output.print(printable(f"curves: {picture}"), soft_wrap=True)


def _seed_groups(folders: list[Path], configs: list[dict[str, Any]]) -> dict[str, str] | None:
    """Flags of each run's group, if some group has enough seeds for a band; else None."""
    flags = different_flags(configs)
    if max(Counter(flags).values()) < BAND:
        return None
    return dict(zip(map(str, folders), flags, strict=True))


def _show_groups(configs: dict[Path, dict[str, Any]], finished: dict[Path, dict[str, Any]]) -> None:
    """Prints the means and intervals of runs that differ only in the seed, if there are any.

    Args:
      configs: config of each run, by its folder.
      finished: summary of each finished run.
    """
    try:
        results = [make_result(folder, configs[folder], finished[folder]) for folder in finished]
        groups = [  # an agent's runs in several environments have no common mean
            [run for run in group if run.data == data]
            for group in grouped(results)
            for data in dict.fromkeys(run.data for run in group)
        ]
        if max(map(len, groups), default=0) < 2:
            return
        metric = metric_of([run.summary for run in results], "")
    except UserError as error:
        say(f"{error}: no means over seeds")
        return
    values = [{run.seed: float(run.summary[metric]) for run in group} for group in groups]
    marks = comparison.marks(values)
    lettered = any(marks.letters)
    flags = different_flags([group[0].config for group in groups])
    rows = [
        (name, len(own), *comparison.texts(own)[:2], *([letters] if lettered else []))
        for name, own, letters in zip(flags, values, marks.letters, strict=True)
    ]
    print()
    columns = ("flags", "seeds", f"mean {metric}", "95 % interval")
    show((*columns, *(["letters"] if lettered else [])), rows)
    if marks.note:
        console().print(marks.note, soft_wrap=True)


def _summary(folder: Path, summary: dict[str, Any] | None) -> dict[str, Any]:
    """Entries of a run's summary for the table; without one, of its log's last lines."""
    if summary is not None:
        best = summary.get("best_metric", "")
        selected = [f"{part}/{best}" for part in ("test", "best/test", "best/validation")]
        general = ("step", "best_step", "seconds", "examples_per_second")
        further = [
            name
            for name in summary
            if name in general or (name.startswith(("test/", "best/")) and name[-5:] != "/loss")
        ]
        columns = dict.fromkeys([*selected, *further])
        return {name: summary[name] for name in columns if name in summary}
    lines = logger.read_metrics(folder)
    step = {"step": lines[-1]["step"]} if lines else {}
    return step | metrics_log.last_results(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return shortened(value, 1000)
    if 0 < abs(value) < 0.001:
        return f"{value:.3g}"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"
