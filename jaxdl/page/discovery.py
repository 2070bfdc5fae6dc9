"""Runs in folders: run folders, the trials of sweeps, and folders that hold either."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl.errors import UserError
from jaxdl.run.finished import DEPTH, check_folder, holds_run
from jaxdl.sweep import ledger
from jaxdl.sweep.ledger import Ledger

MOST_RUNS = 2000
MOST_FOLDERS = 20_000  # without a run, that are searched


class Place(NamedTuple):
    """Place of a run.

    Attributes:
      folder: the run folder, which need not exist yet.
      trial: the trial's line in the ledger of its sweep; empty outside a sweep.
      problem: reason why the folder is not read; empty if there is none.
    """

    folder: Path
    trial: dict[str, Any]
    problem: str = ""


def places(folders: list[Path]) -> list[Place]:
    """Finds the runs in folders; links below them are left out.

    A sweep whose ledger cannot be read is a place with a problem, and its trials are searched for.

    Args:
      folders: run folders, folders of sweeps, or folders that hold such, at most three levels deep.

    Raises:
      UserError: a folder is none, or there are too many runs or folders.
    """
    runs: dict[Path, Place] = {}
    searched = iter(range(MOST_FOLDERS))
    for folder in folders:
        check_folder(folder)
        for place in _below(folder, DEPTH, searched):
            runs.setdefault(place.folder, place)
            if len(runs) > MOST_RUNS:
                raise UserError(f"{folder} has more than {MOST_RUNS:,} runs: name a subfolder")
    return list(runs.values())


def _below(folder: Path, depth: int, searched: Iterator[int]) -> Iterator[Place]:
    """Yields the runs in a folder, at most `depth` levels below it."""
    if os.path.lexists(folder / ledger.NAME):
        try:
            lines = Ledger.read(folder).lines.values()
        except UserError as error:
            yield Place(folder, {}, str(error))
            if not os.path.islink(folder / ledger.TRIALS):
                yield from _below(folder / ledger.TRIALS, 1, searched)
            return
        yield from map(_trial, lines)
    elif holds_run(folder):
        yield Place(folder, {})
    elif depth:
        if next(searched, None) is None:
            raise UserError(f"more than {MOST_FOLDERS:,} folders to search: name subfolders")
        try:
            children = sorted(folder.iterdir())
        except OSError:  # deleted meanwhile, or not readable
            return
        for child in children:
            is_folder = os.path.isdir(child) and not os.path.islink(child)
            if is_folder and not child.name.startswith("."):
                yield from _below(child, depth - 1, searched)


def _trial(line: dict[str, Any]) -> Place:
    """Place of a trial; a link is not followed."""
    folder = Path(line["workdir"])
    link = next((path for path in (folder.parent, folder) if os.path.islink(path)), None)
    return Place(folder, line, f"{link} is a symbolic link" if link else "")
