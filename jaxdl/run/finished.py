"""Finished runs in a folder, such as a sweep's or one with the runs of an experiment."""

import os
from collections.abc import Iterator
from pathlib import Path

from jaxdl import files
from jaxdl.console import say
from jaxdl.errors import UserError
from jaxdl.run import workdir
from jaxdl.run.run_folder import CHECKPOINTS

SUMMARY = "summary.json"
OWN_FILES = (workdir.CONFIG, CHECKPOINTS, "environment.json", "metrics.jsonl", SUMMARY)
DEPTH = 3  # levels of folders: experiments, their sweeps or runs, trials


def finished_runs(folder: Path) -> list[Path]:
    """Finds the finished runs in a folder, at most DEPTH levels below it, or the folder itself.

    Runs that are not finished are left out, and so are links; a line names each.

    Args:
      folder: a run folder, or a folder of runs.

    Returns:
      The run folders, sorted.

    Raises:
      UserError: there is no finished run.
    """
    files.check_encoding(folder.absolute())
    check_folder(folder)
    finished = []
    for run in run_folders(folder, DEPTH):
        if (run / SUMMARY).exists():
            finished.append(run)
        elif run == folder:
            raise UserError(f"{run} has no {SUMMARY} yet: finish the run, with the same command")
        else:
            say(f"{run} has no {SUMMARY} yet: left out")
    if not finished:
        raise UserError(f"{folder} has no finished run: train one first")
    return finished


def check_folder(folder: Path) -> None:
    """Checks that a path that was given for runs is a folder.

    Raises:
      UserError: it is not.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name a run folder, or a folder of runs")


def holds_run(folder: Path) -> bool:
    """Returns True for the folder of a run, finished or not."""
    return os.path.exists(folder / workdir.CONFIG) or os.path.isdir(folder / CHECKPOINTS)


def run_folders(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Yields the run folders at most `depth` levels below a folder, or the folder itself.

    Raises:
      UserError: a folder cannot be read.
    """
    if holds_run(folder):
        yield folder
    elif depth:
        try:
            children = sorted(folder.iterdir())
        except OSError as error:
            raise UserError(f"{folder} cannot be read ({error.strerror})") from error
        for child in children:
            if child.is_symlink() and child.is_dir():
                say(f"{child} is a symbolic link: left out")
            elif child.is_dir() and not child.name.startswith("."):
                yield from run_folders(child, depth - 1)


def check_output(path: Path, flag: str, suffix: str) -> None:
    """Checks the path of a file about runs before any work is done.

    Args:
      path: the file; need not exist.
      flag: name of the flag that it comes from.
      suffix: how its name has to end, such as `.png`.

    Raises:
      UserError: it is a folder, has another suffix, or is in a run folder, whose files it might
        replace: one with two or more of the files of a run.
    """
    if path.suffix != suffix or path.is_dir():
        why = " (it is a folder)" if path.is_dir() else ""
        raise UserError(f"--{flag}={path}: name a file that ends in {suffix}{why}")
    for folder in Path(os.path.realpath(path)).parents:
        if sum(os.path.lexists(folder / name) for name in OWN_FILES) > 1:
            raise UserError(f"--{flag}={path} is in the run folder {folder}: name a file elsewhere")
