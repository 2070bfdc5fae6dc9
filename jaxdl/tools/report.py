"""Many runs side by side: a table of their summaries and one picture of their curves."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxdl.config import RunConfig
from jaxdl.console import console, say, show
from jaxdl.errors import UserError, printable, shortened
from jaxdl.run import curves, logger, metrics_log, workdir

PLACES = {f.name for f in dataclasses.fields(RunConfig) if f.metadata["runtime"]}


def report(folders: list[Path], picture: Path) -> None:
    """Prints a row a run to stdout and draws the runs' curves into `picture`.

    Columns are the hyperparameters in which the runs differ, then the figures of their summaries.

    Raises:
      UserError: one of `folders` is not a run folder.
    """
    check_picture(picture)
    configs = [_config(folder) for folder in folders]
    differing = [
        name
        for name in dict.fromkeys(name for config in configs for name in config)
        if len({repr(config.get(name)) for config in configs}) > 1 and name not in PLACES
    ]
    summaries = [_summary(folder) for folder in folders]
    figures = dict.fromkeys(name for summary in summaries for name in summary)
    # A narrow terminal has room for the first columns: one is a result.
    results = sorted((name for name in figures if "/" in name), key=lambda n: n[:5] != "test/")
    first, rest = results[:1], [name for name in figures if name not in results[:1]]
    rows = []
    for folder, config, summary in zip(folders, configs, summaries, strict=True):
        cells = [*(config.get(n) for n in differing), *(summary.get(n) for n in rest)]
        rows.append((folder, *map(_cell, [*(summary.get(n) for n in first), *cells])))
    show(("run", *first, *differing, *rest), rows)
    output = console()
    runs = {str(folder): logger.read_metrics(folder) for folder in folders}
    if any(runs.values()):
        try:
            curves.curves(runs, picture)
        except OSError as error:
            raise UserError(f"--output={picture} cannot be written: {error.strerror}") from error
        output.print(printable(f"curves: {picture}"), soft_wrap=True)


def _config(folder: Path) -> dict[str, Any]:
    """A run's config; a line says where config.json is not what its checkpoints hold."""
    config, notice = workdir.read_config(folder, workdir.config_in_checkpoints(folder), PLACES)
    if notice:
        say(notice)
    return config


def check_picture(path: Path) -> None:
    """Refuses early what is no place for a picture.

    Raises:
      UserError: it is a folder, or no PNG.
    """
    if path.suffix != ".png" or path.is_dir():
        raise UserError(f"--output={path}: name a file that ends in .png")


def _summary(folder: Path) -> dict[str, Any]:
    """The figures of a run that a table shows; of one still going, what its log says last."""
    if (folder / "summary.json").exists():
        summary = logger.read_summary(folder)
        best = summary.get("best_metric", "")
        ours = [f"{part}/{best}" for part in ("test", "best/test", "best/validation")]
        shown = ("step", "best_step", "seconds", "examples_per_second")
        others = [
            name
            for name in summary
            if name in shown or (name.startswith(("test/", "best/")) and name[-5:] != "/loss")
        ]
        return {name: summary[name] for name in dict.fromkeys([*ours, *others]) if name in summary}
    found: dict[str, Any] = {}
    for line in logger.read_metrics(folder):
        found["step"] = line["step"]
        if line["split"] != "train":
            found |= {
                f"{line['split']}/{name}": line[name] for name in metrics_log.metric_names(line)
            }
    return found


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return shortened(value, 1000)
    if 0 < abs(value) < 0.001:
        return f"{value:.3g}"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"
