"""Published figures: what real runs reached, kept beside the experiments, and the README's table.

`results/EXPERIMENT.json` has one entry a run: flags, seed, data, hardware, versions, commit and the
run's own summary. The table is made from these files alone, and a test holds it against them.

    python -m experiments.benchmarks.publish runs/a runs/b --note="a copy of MNIST"
"""

import json
import statistics
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from experiments.benchmarks import generated
from experiments.benchmarks.generated import Part
from jaxdl import config as configs
from jaxdl import files, saved_config
from jaxdl.cli import Parser, guard
from jaxdl.errors import UserError, first_line
from jaxdl.run import environment, logger, metrics_log, restore

PART = Part(
    "<!-- results: made by `python -m experiments.benchmarks.publish` -->",
    "<!-- end of results -->",
)
HEADER = """| command, after `python -m` | data | test | seeds | on | minutes |
| --- | --- | --- | --- | --- | --- |"""


def keep(folder: Path, kept: Path, note: str = "") -> Path:
    """Adds a finished run to the files of results, in the place of one of the same flags and seed.

    Args:
      folder: of the run.
      kept: folder of the results.
      note: what a reader has to know of its data, such as that they are a copy.

    Returns:
      The file that holds it now.

    Raises:
      UserError: the run is not finished, its figures are not finite, it was not made from a commit,
        or the note does not fit into a table.
    """
    run = restore.open_run(folder, restore.NEWEST)
    if not (folder / "summary.json").exists():
        raise UserError(f"{folder} has no summary.json yet: finish the run, with the same command")
    about, git = _about(folder)
    summary = logger.read_summary(folder)
    figures = ["seconds", *(name for name in summary if name.startswith("test/"))]
    missing = [name for name in figures if type(summary.get(name)) not in (int, float)]
    if missing:
        raise UserError(
            f"{folder} has a {missing[0]} that is not a number: run it again at a lower rate"
        )
    if any(ord(c) < 32 or c == "|" for c in note):
        raise UserError(
            f"--note={note!r}: a table has no place for | and control characters: leave them out"
        )
    if git["dirty"]:
        raise UserError(
            f"{folder} was made from files that are in no commit, and a published figure names the "
            "code that makes it: commit, and run it again"
        )
    entry = {
        "flags": _flags(run.config),
        "seed": run.config.seed,
        "note": note,
        **about,
        "commit": git["commit"],
        "summary": summary,
    }
    path = kept / f"{run.experiment.__name__.removeprefix('experiments.')}.json"
    runs = _read(path)["runs"] if path.exists() else []
    runs = [other for other in runs if _place(other) != _place(entry)] + [entry]
    kept.mkdir(parents=True, exist_ok=True)
    whole = {"experiment": run.experiment.__name__, "runs": sorted(runs, key=_place)}
    files.write_text(path, json.dumps(metrics_log.finite(whole), indent=1) + "\n")
    return path


def _about(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Data, machine and state of the code of a published run.

    Raises:
      UserError: environment.json is not what a run writes.
    """
    described = files.read_json(folder / "environment.json")
    try:
        about = {
            "data": {k: described["dataset"][k] for k in ("name", "version", "fingerprint")},
            "hardware": environment.hardware(described),
            "python": described["python"],
            "packages": {name: described["packages"][name] for name in ("jax", "flax", "optax")},
        }
        git = described["git"] or {"commit": None, "dirty": True}
        return about, {"commit": git["commit"], "dirty": git["dirty"]}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f"{folder}/environment.json is not what a run writes ({first_line(error)}): run it anew"
        ) from error


def table(kept: Path) -> str:
    """Markdown: a row for each experiment, its flags and its hardware, over all seeds.

    Figures are of the final state: the mean over seeds and, of more than one, their standard
    deviation (of a sample).
    """
    rows = [HEADER]
    for path in sorted(kept.glob("*.json")):
        whole = _read(path)
        for _, group in groupby(sorted(whole["runs"], key=_place), key=lambda r: _place(r)[:-1]):
            runs = list(group)
            first = runs[0]
            command = f"`{whole['experiment']}{' ' if first['flags'] else ''}{first['flags']}`"
            data = f"{first['data']['name']}{', ' if first['note'] else ''}{first['note']}"
            minutes = statistics.mean(run["summary"]["seconds"] for run in runs) / 60
            versions = f"jax {first['packages']['jax']}"
            cells = [
                *(command, data, _figures(runs), str(len(runs))),
                *(f"{first['hardware']}, {versions}", f"{minutes:.1f}" if minutes > 1 else "< 1"),
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def write(kept: Path, page: Path) -> None:
    """Puts the table into a page, between its two marks.

    Raises:
      UserError: the page has no marks, or there are no results.
    """
    generated.check(page, PART)
    if not list(kept.glob("*.json")):
        raise UserError(f"--results={kept} holds no results: name the folder that does, or a RUN")
    generated.fill(page, PART, table(kept))


def _read(path: Path) -> dict[str, Any]:
    whole = files.read_json(path)
    runs = whole.get("runs")
    if not isinstance(runs, list) or not isinstance(whole.get("experiment"), str):
        raise UserError(f"{path} is not a file of results: mend or delete it")
    return whole


def _flags(config: configs.RunConfig) -> str:
    """Flags that differ from the experiment's defaults, but for the seed and the places."""
    mine, usual = (
        saved_config.to_flags(config).split("\n"),
        saved_config.to_flags(type(config)()).split("\n"),
    )
    hidden = {"seed", *saved_config.runtime_fields(config)}
    return " ".join(
        flag
        for flag, default in zip(mine, usual, strict=True)
        if flag != default and flag.removeprefix("--").split("=")[0] not in hidden
    )


def _place(run: dict[str, Any]) -> tuple[str, str, str, str, str, int]:
    """Key of the row that a run belongs to: all but the seed."""
    jax = run["packages"]["jax"]
    data = run["data"]["fingerprint"]
    return run["flags"], data, run["note"], run["hardware"], jax, run["seed"]


def _figures(runs: list[dict[str, Any]]) -> str:
    """Means and deviations of all metrics but the loss."""
    start, cells = "test/", []
    for name in runs[0]["summary"]:
        if name.startswith(start) and name != f"{start}loss":
            values = [run["summary"][name] for run in runs]
            spread = f" ± {_digits(statistics.stdev(values))}" if len(values) > 1 else ""
            shown = name.removeprefix(start).replace("_", " ")
            cells.append(f"{shown} {_digits(statistics.mean(values))}{spread}")
    return ", ".join(cells)


def _digits(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 2 else f"{value:.2f}"


def run(arguments: list[str]) -> None:
    """Adds the runs that the command line names, and makes the page's table anew.

    Raises:
      UserError: as of `keep` and `write`; the page is checked before a run is added.
    """
    parser = Parser(
        "python -m experiments.benchmarks.publish", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="finished runs to add")
    parser.add_argument(
        "--note", default="", help="remark on the data of these runs, for the table"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("experiments/results"), help="folder of the results"
    )
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"), help="page with the table")
    chosen = parser.parse_args(arguments)
    for path in (chosen.page, chosen.results, *chosen.runs):
        files.check_encoding(path)
    generated.check(chosen.page, PART)
    for folder in chosen.runs:
        print(keep(folder, chosen.results, chosen.note))
    write(chosen.results, chosen.page)


if __name__ == "__main__":
    sys.exit(guard(lambda: run(sys.argv[1:])))
