"""Runs in folders: run folders, the trials of sweeps, and folders that hold either."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl.errors import UserError
from jaxdl.run import workdir
from jaxdl.run.finished import DEPTH
from jaxdl.run.run_folder import CHECKPOINTS
from jaxdl.sweep import ledger
from jaxdl.sweep.ledger import Ledger

MOST_RUNS = 2000
MOST_FOLDERS = 20_000  # that are searched


class Place(NamedTuple):
    """Place of a run.

    Attributes:
      folder: the run folder, which need not exist yet.
      trial: the trial's line in the ledger of its sweep; empty outside a sweep.
    """

    folder: Path
    trial: dict[str, Any]


def places(folders: list[Path]) -> list[Place]:
    """Finds the runs in folders; links below them are left out.

    Args:
      folders: run folders, folders of sweeps, or folders that hold such, at most three levels deep.

    Raises:
      UserError: a folder is none, its ledger cannot be read, or there are too many runs.
    """
    runs: dict[Path, Place] = {}
    searched = iter(range(MOST_FOLDERS))
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: name a run folder, or a folder of runs")
        for place in _below(folder, DEPTH, searched):
            runs.setdefault(place.folder, place)
            if len(runs) > MOST_RUNS:
                raise UserError(f"{folder} has more than {MOST_RUNS:,} runs: name a subfolder")
    return list(runs.values())


def _below(folder: Path, depth: int, searched: Iterator[int]) -> Iterator[Place]:
    """Yields the runs in a folder, at most `depth` levels below it."""
    if (folder / ledger.NAME).exists():
        for line in Ledger.read(folder).lines.values():
            yield Place(Path(line["workdir"]), line)
    elif (folder / workdir.CONFIG).exists() or (folder / CHECKPOINTS).is_dir():
        yield Place(folder, {})
    elif depth and next(searched, None) is not None:
        try:
            children = sorted(folder.iterdir())
        except OSError:  # deleted meanwhile, or not readable
            return
        for child in children:
            if not child.name.startswith(".") and not child.is_symlink() and child.is_dir():
                yield from _below(child, depth - 1, searched)
