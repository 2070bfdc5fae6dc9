"""The `report` command: a table of runs and a picture of their learning curves."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxdl.config import RunConfig
from jaxdl.console import console, say, show
from jaxdl.errors import UserError, printable, shortened
from jaxdl.run import curves, logger, metrics_log, workdir

RUNTIME_FIELDS = {f.name for f in dataclasses.fields(RunConfig) if f.metadata["runtime"]}


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
    check_picture(picture)
    configs = [_config(folder) for folder in folders]
    differing = [
        name
        for name in dict.fromkeys(name for config in configs for name in config)
        if len({repr(config.get(name)) for config in configs}) > 1 and name not in RUNTIME_FIELDS
    ]
    summaries = [_summary(folder) for folder in folders]
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
    output = console()
    runs = {str(folder): logger.read_metrics(folder) for folder in folders}
    if any(runs.values()):
        try:
            curves.curves(runs, picture)
        except OSError as error:
            raise UserError(f"--output={picture} cannot be written: {error.strerror}") from error
        output.print(printable(f"curves: {picture}"), soft_wrap=True)


def _config(folder: Path) -> dict[str, Any]:
    """Reads a run's config; prints a line if config.json differs from its checkpoints."""
    config, notice = workdir.read_config(
        folder, workdir.config_in_checkpoints(folder), RUNTIME_FIELDS
    )
    if notice:
        say(notice)
    return config


def check_picture(path: Path) -> None:
    """Checks the path of a picture before any work is done.

    Raises:
      UserError: it is a folder, or does not end in .png.
    """
    if path.suffix != ".png" or path.is_dir():
        raise UserError(f"--output={path}: name a file that ends in .png")


def _summary(folder: Path) -> dict[str, Any]:
    """Entries of a run's summary for the table; without one, of its log's last lines."""
    if (folder / "summary.json").exists():
        summary = logger.read_summary(folder)
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
    latest: dict[str, Any] = {}
    for line in logger.read_metrics(folder):
        latest["step"] = line["step"]
        if line["split"] != "train":
            latest |= {
                f"{line['split']}/{name}": line[name] for name in metrics_log.metric_names(line)
            }
    return latest


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return shortened(value, 1000)
    if 0 < abs(value) < 0.001:
        return f"{value:.3g}"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"
