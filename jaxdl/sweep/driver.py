"""A sweep from its command line to its table: which trials, what is left of them, who runs them."""

import hashlib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl import cli
from jaxdl import config as configs
from jaxdl.config import RunConfig
from jaxdl.errors import TrainingError, UserError
from jaxdl.lock import Lock
from jaxdl.progress import say
from jaxdl.signals import Stopped
from jaxdl.sweep import cluster, grid, ledger, local, slurm

ENGINES = ("local", "slurm", "ray")
OURS = ("workdir", "resume", "dry_run")  # flags of a run that a sweep gives its trials itself


class Options(NamedTuple):
    """How a sweep is run."""

    engine: str  # one of ENGINES
    jobs: int  # trials at a time; 0: as the engine has room
    draws: int  # combinations to draw; 0: all
    retries: int  # of a trial that was killed
    cpus: int  # of a trial, for Slurm and Ray
    gpus: int
    workdir: str  # of the sweep; "": by what it tries


def sweep(experiment: str, flags: list[str], fixed: list[str], options: Options) -> Path:
    """Runs what is not done yet of a sweep; returns its folder.

    Args:
      experiment: module, such as `experiments.mnist_lenet`.
      flags: of the experiment, with lists and ranges (`grid.trials`).
      fixed: flags that are taken as they are.
      options: how.

    Raises:
      UserError: a flag is wrong in any of the trials, or the folder holds something else.
      TrainingError: trials failed.
    """
    trials = planned(experiment, flags, fixed, options.draws)
    folder = place(experiment, flags, fixed, options)
    known = ledger.Ledger.read(folder)
    known.add(experiment, trials)  # refuses before anything is written
    if (
        folder.is_dir()
        and not (folder / ledger.NAME).exists()
        and any(p.name[0] != "." for p in folder.iterdir())
    ):
        raise UserError(f"--workdir={folder} is not empty and no sweep: give a new or empty one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with Lock(folder / ".lock"):
            _run(ledger.Ledger.read(folder), experiment, trials, options)
    except OSError as error:
        raise UserError(f"--workdir={folder} cannot be written ({error.strerror})") from error
    return folder


def planned(experiment: str, flags: list[str], fixed: list[str], draws: int) -> list[grid.Trial]:
    """The trials, each with flags that the experiment takes.

    Raises:
      UserError: there is no such experiment, or it does not take the flags of a trial.
    """
    for flag in (*flags, *fixed):
        if flag.lstrip("-").split("=")[0] in OURS and flag[:1] == "-":
            raise UserError(f"{flag}: a sweep gives that to its trials itself: leave it out")
    config = _config(experiment)
    trials = grid.trials(config, flags, fixed, draws)
    for trial in trials:
        if cli.parse(config, trial.flags) is None:
            raise UserError(f"--help: ask python -m {experiment} --help")
    return trials


def commands(experiment: str, trials: list[grid.Trial], folder: Path) -> list[str]:
    """The command of each trial."""
    plan = ledger.Ledger(folder, [])
    plan.add(experiment, trials)
    return [line["command"] for line in plan.lines.values()]


def place(experiment: str, flags: list[str], fixed: list[str], options: Options) -> Path:
    """The sweep's folder: the same command, started again, finds it."""
    if options.workdir:
        return Path(configs.absolute(options.workdir))
    what = json.dumps([experiment, sorted(flags), fixed, options.draws])
    digest = hashlib.sha256(what.encode()).hexdigest()[:8]
    return Path(configs.absolute(f"runs/{experiment.rpartition('.')[2]}/sweep-{digest}"))


def _run(known: ledger.Ledger, experiment: str, trials: list[grid.Trial], options: Options) -> None:
    known.add(experiment, trials)
    names = [trial.name for trial in trials]
    for name in names:
        known.lines[name].update(ledger.result(known.lines[name]) or {"state": "waiting"})
    known.write()
    left = [name for name in names if known.lines[name]["state"] != "done"]
    say(f"sweep: {known.folder}, {len(names)} trials, {len(names) - len(left)} of them done")
    if options.engine == "slurm":
        slurm.submit(known, left, options.jobs, options.cpus, options.gpus)
        return
    how = options.jobs, options.retries
    try:
        if options.engine == "ray":
            cluster.run(known, left, *how, options.cpus, options.gpus)
        else:
            local.run(known, left, *how)
    except Stopped as stop:
        number = stop.status - 128
        done = [known.lines[name]["state"] for name in names].count("done")
        raise Stopped(
            number,
            f"stopped by signal {number}; {done} of {len(names)} trials are done: the same command "
            "goes on",
        ) from stop
    failed = [name for name in names if known.lines[name]["state"] != "done"]
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(names)} trials failed ({', '.join(failed[:3])}"
            f"{', ...' if failed[3:] else ''}): the same command tries them again"
        )


def _config(experiment: str) -> type[RunConfig]:
    """The experiment's flags.

    Raises:
      UserError: there is no such experiment.
    """
    if os.getcwd() not in sys.path:  # as `python -m` has it
        sys.path.insert(0, os.getcwd())
    try:
        module: Any = importlib.import_module(experiment)
    except ImportError as error:
        text = f"{experiment} is no experiment that can be imported ({error}): jaxdl list"
        raise UserError(text) from error
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, RunConfig)):
        raise UserError(f"{experiment} has no Config of flags: name an experiment (jaxdl list)")
    return config
