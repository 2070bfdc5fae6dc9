"""Published results of real runs, stored beside the experiments, and the table made from them.

`results/EXPERIMENT.json` has one entry per run: flags, config, seed, data, hardware, versions,
commit and the run's own summary, from which `jaxdl reproduce` trains it again. The table is made
from these files alone, and a test compares the two. In the table of the README, figures of fewer
than three seeds get a mark.

    python -m experiments.benchmarks.publish runs/a runs/b --note="a copy of MNIST"
"""

import json
import re
import statistics
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from experiments.benchmarks import generated
from experiments.benchmarks.generated import Part
from jaxdl import config as configs
from jaxdl import files, saved_config
from jaxdl.cli import guard
from jaxdl.errors import UserError, first_line
from jaxdl.run import environment, logger, metrics_log, run_folder
from jaxdl.tools.command_line import Parser

PART = Part(
    "<!-- results: made by `python -m experiments.benchmarks.publish` -->",
    "<!-- end of results -->",
)
MARK, FEWEST = "\N{DAGGER}", 3  # of figures of fewer seeds
HEADER = """| command, after `python -m` | data | test | seeds | on | minutes |
| --- | --- | --- | --- | --- | --- |"""


def add_run(folder: Path, results: Path, note: str = "", replace: bool = False) -> Path:
    """Adds a finished run to the results; replaces an older run of the same row and seed.

    Args:
      folder: the run folder.
      results: the folder of the results.
      note: a remark on the data for the reader, such as "a copy".
      replace: remove other rows with the same flags, which are of older code or other hardware.

    Returns:
      The file that was written.

    Raises:
      UserError: the run is not finished, its figures are not finite, it was not made from a commit,
        or the note does not fit into a table.
    """
    run = run_folder.open_run(folder, run_folder.NEWEST)
    if not (folder / "summary.json").exists():
        raise UserError(f"{folder} has no summary.json yet: finish the run, with the same command")
    description, git = _read_environment(folder)
    summary = logger.read_summary(folder)
    figures = ["seconds", *(name for name in summary if name.startswith("test/"))]
    missing = [name for name in figures if type(summary.get(name)) not in (int, float)]
    if missing:
        raise UserError(
            f"{folder} has a {missing[0]} that is not a number: run it again at a lower "
            "--learning_rate"
        )
    if any(ord(c) < 32 or c == "|" for c in note):
        raise UserError(
            f"--note={note!r}: a table cannot hold | or control characters: leave them out"
        )
    if git["dirty"]:
        raise UserError(
            f"{folder} was made from files that are in no commit, but a published figure names its "
            "commit: commit, and run it again"
        )
    config = saved_config.identity(run.config)
    entry = {
        "flags": changed_flags(run.config),
        "config": {n: v for n, v in config.items() if n not in ("experiment", "seed")},
        "seed": run.config.seed,
        "note": note,
        **description,
        "commit": git["commit"],
        "summary": summary,
    }
    path = results / f"{run.experiment.__name__.removeprefix('experiments.')}.json"
    runs = _read(path)["runs"] if path.exists() else []
    row = _row_and_seed(entry)
    if replace:
        runs = [r for r in runs if r["flags"] != row[0] or _row_and_seed(r)[:-1] == row[:-1]]
    runs = [other for other in runs if _row_and_seed(other) != row] + [entry]
    results.mkdir(parents=True, exist_ok=True)
    content = {"experiment": run.experiment.__name__, "runs": sorted(runs, key=_row_and_seed)}
    files.write_text(path, json.dumps(metrics_log.finite(content), indent=1) + "\n")
    return path


def _read_environment(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the data, hardware and versions of a run, and the state of its code.

    Raises:
      UserError: environment.json is not what a run writes.
    """
    described = files.read_json(folder / "environment.json")
    try:
        description = {
            "data": {k: described["dataset"][k] for k in ("name", "version", "fingerprint")},
            "hardware": environment.hardware(described),
            "python": described["python"],
            "packages": {name: described["packages"][name] for name in ("jax", "flax", "optax")},
        }
        facts = environment.facts(described)
        shown = ("hardware", "commit", *description, *description["packages"])
        description["environment"] = {n: v for n, v in facts.items() if n not in shown}
        git = described["git"] or {"commit": None, "dirty": True}
        return description, {"commit": git["commit"], "dirty": git["dirty"]}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f"{folder}/environment.json is damaged ({first_line(error)}): run it again"
        ) from error


def table(results: Path) -> str:
    """Returns a Markdown table with a row for each experiment, its flags and hardware.

    Figures are those of the final state: the mean over seeds and, for more than one seed, the
    sample standard deviation.
    """
    rows = [HEADER]
    for path in sorted(results.glob("*.json")):
        content = _read(path)
        ordered = sorted(content["runs"], key=_row_and_seed)
        for _, group in groupby(ordered, key=lambda run: _row_and_seed(run)[:-1]):
            runs = list(group)
            first = runs[0]
            command = f"`{content['experiment']}{' ' if first['flags'] else ''}{first['flags']}`"
            data = f"{first['data']['name']}{', ' if first['note'] else ''}{first['note']}"
            minutes = statistics.mean(run["summary"]["seconds"] for run in runs) / 60
            cells = [
                *(command, data, _figures(runs), str(len(runs))),
                f"{first['hardware']}, {_versions(first)}",
                f"{minutes:.1f}" if minutes > 1 else "< 1",
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def marked(text: str, results: Path) -> str:
    """Returns the README with a mark behind each figure of a row of fewer than FEWEST seeds.

    Args:
      text: the README. The figures are in the last column of the table under "## Experiments".
      results: the folder of the results.
    """
    published = table(results).splitlines()

    def mark(line: str) -> str:
        names = re.findall(r"`(\w+)`", line.split("|")[1])
        rows = [row for row in published if any(f"`experiments.{n}" in row for n in names)]

        def seeds(figure: str) -> int:
            numbers = [int(row.split(" | ")[3]) for row in rows if figure in row.split(" | ")[2]]
            return max(numbers, default=FEWEST)

        def with_mark(match: re.Match[str]) -> str:
            return f"{match[1]}{match[2]}{MARK if seeds(match[1]) < FEWEST else ''}"

        head, cell = line.rsplit("|", 2)[:2]
        return f"{head}|{re.sub(rf'([0-9]+[.][0-9][0-9]+)([*]?){MARK}?', with_mark, cell)}|"

    before, title, remainder = text.partition("## Experiments\n")
    part, end, after = remainder.partition("\n## ")
    lines = [mark(line) if line.startswith("| `") else line for line in part.split("\n")]
    return "".join([before, title, "\n".join(lines), end, after])


def write(results: Path, page: Path) -> None:
    """Writes the table into a page, between its two marks.

    Raises:
      UserError: the page has no marks, or there are no results.
    """
    generated.check(page, PART)
    if not list(results.glob("*.json")):
        raise UserError(f"--results={results} holds no results: name another folder, or add a RUN")
    generated.fill(page, PART, table(results))


def _read(path: Path) -> dict[str, Any]:
    content = files.read_json(path)
    runs = content.get("runs")
    if not isinstance(runs, list) or not isinstance(content.get("experiment"), str):
        raise UserError(f"{path} is not a file of results: repair or delete it")
    return content


def changed_flags(config: configs.RunConfig) -> str:
    """Returns the flags that differ from the defaults, without the seed and runtime flags."""
    flags = saved_config.to_flags(config).split("\n")
    defaults = saved_config.to_flags(type(config)()).split("\n")
    hidden = {"seed", *saved_config.runtime_fields(config)}
    return " ".join(
        flag
        for flag, default in zip(flags, defaults, strict=True)
        if flag != default and flag.removeprefix("--").split("=")[0] not in hidden
    )


def _row_and_seed(run: dict[str, Any]) -> tuple[str, str, str, str, str, int]:
    """Returns the key of the table row of a run, followed by its seed."""
    data = run["data"]["fingerprint"]
    return run["flags"], data, run["note"], run["hardware"], _versions(run), run["seed"]


def _versions(run: dict[str, Any]) -> str:
    """Names the versions of jax and, if it computed a part of the run, of oneDNN."""
    facts = (run.get("environment", {}).get(name, "") for name in environment.NATIVE)
    library = {fact.split(",")[0] for fact in facts if fact.startswith("oneDNN")}
    return ", ".join([f"jax {run['packages']['jax']}", *sorted(library)])


def _figures(runs: list[dict[str, Any]]) -> str:
    """Formats means and deviations of all test metrics except the loss."""
    prefix, cells = "test/", []
    for name in runs[0]["summary"]:
        if name.startswith(prefix) and name != f"{prefix}loss":
            values = [run["summary"][name] for run in runs]
            mean = statistics.mean(values)
            digits = 2 if abs(mean) >= 2 else 4 if abs(mean) >= 0.001 else 6
            deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            label = name.removeprefix(prefix).replace("_", " ")
            cells.append(f"{label} {mean:.{digits}f}{deviation}")
    return ", ".join(cells)


def run(arguments: list[str]) -> None:
    """Adds the runs that the command line names, and updates the table of the page.

    Raises:
      UserError: see `add_run` and `write`; the page is checked before a run is added.
    """
    parser = Parser(
        "python -m experiments.benchmarks.publish", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="finished runs to add")
    parser.add_argument(
        "--note", default="", help="remark on the data of these runs, for the table"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="remove rows with the same flags of older code or of other hardware",
    )
    parser.add_argument(
        "--readme", type=Path, default=Path("README.md"), help="page whose figures are marked"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("experiments/results"), help="folder of the results"
    )
    parser.add_argument(
        "--page", type=Path, default=Path("docs/results.md"), help="page with the table"
    )
    chosen = parser.parse_args(arguments)
    for path in (chosen.page, chosen.readme, chosen.results, *chosen.runs):
        files.check_encoding(path)
    generated.check(chosen.page, PART)
    generated.read(chosen.readme)
    for folder in chosen.runs:
        print(add_run(folder, chosen.results, chosen.note, chosen.replace))
    write(chosen.results, chosen.page)
    text = generated.read(chosen.readme)
    files.write_text(chosen.readme, marked(text, chosen.results))


if __name__ == "__main__":
    sys.exit(guard(lambda: run(sys.argv[1:])))
