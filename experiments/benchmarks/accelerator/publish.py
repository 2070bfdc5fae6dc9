"""Adds the results of an accelerator to the published figures.

    python -m experiments.benchmarks.accelerator.publish --add=FOLDER/results.jsonl
    python -m experiments.benchmarks.performance      # makes the tables

The results are published as those of --commit; they must have been measured with its code.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.benchmarks import performance
from experiments.benchmarks.accelerator import report
from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.errors import UserError

CHECKED = {"runs": "does everything run", "checks": "numerics, parallelism and checkpoints"}


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """File of results to read, its commit, and the folder to write."""

    add: str = flag("", "results.jsonl of an accelerator, or its folder", runtime=True)
    commit: str = flag("HEAD", "commit whose code was measured")
    results: str = flag(performance.KEPT, "folder of the files of figures", runtime=True)


def run(config: Config) -> dict[str, Any]:
    """Adds the figures; returns their folder and number."""
    if not config.add:
        raise UserError("--add is missing: name a results.jsonl of the accelerator, or its folder")
    performance.make_folder(Path(config.results), "results")
    count = add(Path(config.add), Path(config.results), config.commit)
    return {"results": config.results, "figures": count}


def add(path: Path, folder: Path, commit: str = "HEAD") -> int:
    """Adds the figures of a file of results; returns their number.

    A machine to which the code was only copied has no commit. The results therefore have the digest
    of the code, which must be that of `commit`.

    Args:
      path: the file of results, or its folder.
      folder: the folder of the published figures.
      commit: the commit whose code was measured.

    Raises:
      UserError: the results are of other code, of a rehearsal, or there are none.
    """
    path = path / "results.jsonl" if path.is_dir() else path
    results = report.read(path)
    origin = next((line for line in results if line["name"] == "origin"), None)
    if origin is None:
        raise UserError(f"--add={path} has no results: name a results.jsonl of the accelerator")
    if any(line.get("rehearsal") for line in results):
        raise UserError(f"--add={path} is of a rehearsal: measure again without --rehearse")
    measured = performance.committed(commit)
    if origin.get("source") != measured["source"]:
        raise UserError(
            f"--add={path} was measured with other code than that of --commit={commit}: name the "
            "commit that was measured"
        )
    source = {"commit": measured["commit"], "dirty": False, "date": origin["date"]}
    entries = [(kind, entry) for line in results for kind, entry in _entries(line)]
    entries += _checks(results, entries)
    if not entries:
        raise UserError(f"--add={path} has no figure of a known device: nothing is published")
    for kind, entry in entries:
        performance.save(folder, entry | source, kind)
    return len(entries)


def _entries(line: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the figures of a result, with the total seconds of the kernels in a step."""
    kernels = {side: rows[0][1] for side, rows in line.get("kernels", {}).items() if rows}
    for kind, entry in line.get("entries", []):
        yield kind, entry | ({"kernel_seconds": kernels} if kernels else {})


def _checks(
    results: list[dict[str, Any]], entries: list[tuple[str, dict[str, Any]]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the states of the checks of each part, if all results are of the same hardware."""
    hardware = {line["hardware"] for line in results if "hardware" in line}
    hardware |= {entry["hardware"] for _, entry in entries}
    for part, case in CHECKED.items():
        own = [line for line in results if line["name"].startswith(f"{part}/")]
        states = {line["name"].partition("/")[2]: line["state"] for line in own}
        if states and len(hardware) == 1:
            yield "checks", {"case": case, "states": states, "hardware": min(hardware)}


if __name__ == "__main__":
    cli.main(run, Config)
