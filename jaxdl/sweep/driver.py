"""A sweep from its command line to its table: which trials, what is left of them, who runs them."""

import hashlib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl import config as configs
from jaxdl import files, saved_config
from jaxdl.config import RunConfig
from jaxdl.console import say
from jaxdl.errors import TrainingError, UserError, first_line
from jaxdl.flags import parse_flags
from jaxdl.lock import Lock
from jaxdl.signals import Stopped
from jaxdl.sweep import grid, ledger, local, ray, slurm
from jaxdl.sweep.ledger import Ledger

Trials = list[tuple[grid.Trial, dict[str, Any]]]  # with what decides their bits
OURS = ("workdir", "resume", "dry_run")  # flags of a run that a sweep gives its trials itself


class Options(NamedTuple):
    """Options of a sweep."""

    engine: str  # local, slurm or ray
    jobs: int  # trials at a time; 0: as the engine has room
    draws: int  # combinations to draw; 0: all
    retries: int  # of a trial that was killed
    cpus: int  # of a trial, for Slurm and Ray; 0: one
    gpus: int
    workdir: str  # of the sweep; "": by what it tries


def sweep(experiment: str, flags: list[str], fixed: list[str], options: Options) -> None:
    """Runs what is not done yet of a sweep, in its `place`.

    Args:
      experiment: module, such as `experiments.mnist_lenet`.
      flags: of the experiment, with lists and ranges (`grid.trials`).
      fixed: flags that are taken as they are.
      options: how.

    Raises:
      UserError: a flag is wrong in any of the trials, the folder holds something else, or there is
        no such engine here.
      TrainingError: trials failed.
    """
    trials = planned(experiment, flags, fixed, options.draws)
    folder = place(experiment, flags, fixed, options)
    _check(folder, experiment, trials, options)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder / ".lock")
    except OSError as error:
        raise UserError(f"--workdir={folder} cannot be written ({error.strerror})") from error
    with lock:
        try:
            _run(Ledger.read(folder), experiment, trials, options)
        except OSError as error:
            text = f"{first_line(error)}: mend it, and the same command goes on"
            raise TrainingError(text) from error


def _check(folder: Path, experiment: str, trials: Trials, options: Options) -> None:
    """Refuses, before anything is written, what cannot be run there."""
    if options.engine == "local" and (options.cpus or options.gpus):
        raise UserError(
            "--cpus and --gpus are for Slurm and Ray: here --jobs share the processors, and each "
            "has a GPU of its own where there are some"
        )
    if options.engine == "slurm":
        slurm.check()
    if options.engine == "ray":
        ray.check()
    ours = (ledger.NAME, ledger.TRIALS, ledger.LOGS, ledger.PICTURE, slurm.FOLDER)
    files.refuse_links(folder, (*ours, ".lock"), depth=1)  # trials look into their own folders
    Ledger.read(folder).add(experiment, trials)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if any(name not in ours and name[0] != "." for name in names):
        raise UserError(f"--workdir={folder} holds other things: give a new or empty one")


def planned(experiment: str, flags: list[str], fixed: list[str], draws: int) -> Trials:
    """The trials, each with the config that its flags make.

    Raises:
      UserError: there is no such experiment, or it does not take the flags of a trial.
    """
    for flag in (*flags, *fixed):
        if flag.lstrip("-").split("=")[0] in OURS and flag[:1] == "-":
            raise UserError(f"{flag}: a sweep gives that to its trials itself: leave it out")
    config = _config(experiment)
    found = []
    for trial in grid.trials(config, flags, fixed, draws):
        parsed = parse_flags(config, trial.flags)
        if parsed is None:
            raise UserError(f"--help: ask python -m {experiment} --help")
        found.append((trial, saved_config.identity(parsed)))
    return found


def commands(experiment: str, trials: Trials, folder: Path) -> list[str]:
    """The command of each trial."""
    plan = Ledger.read(folder)
    return [plan.lines[name]["command"] for name in plan.add(experiment, trials)]


def place(experiment: str, flags: list[str], fixed: list[str], options: Options) -> Path:
    """The sweep's folder: the same command, started again, finds it."""
    if options.workdir:
        return Path(configs.absolute(options.workdir, "workdir"))
    what = json.dumps([experiment, sorted(flags), fixed, options.draws])
    digest = hashlib.sha256(what.encode()).hexdigest()[:8]
    return Path(configs.absolute(f"runs/{experiment.rpartition('.')[2]}/sweep-{digest}"))


def _run(known: Ledger, experiment: str, trials: Trials, options: Options) -> None:
    names = known.add(experiment, trials)
    for name in names:
        found = ledger.result(known.lines[name])
        handed_in = options.engine == "slurm" and known.lines[name]["state"] == "queued"
        known.lines[name].update(found or ({} if handed_in else {"state": "waiting"}))
    known.write()
    left = [name for name in names if known.lines[name]["state"] != "done"]
    say(f"sweep: {known.folder}, {len(names)} trials, {len(names) - len(left)} of them done")
    how, room = (options.jobs, options.retries), (options.cpus or 1, options.gpus)
    try:
        if options.engine == "slurm":
            slurm.submit(known, left, options.jobs, *room)
        elif options.engine == "ray":
            ray.run(known, left, *how, *room)
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
    failed = [name for name in names if known.lines[name]["state"] == "failed"]
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
    except Exception as error:  # whatever the module does when it is imported
        why = first_line(error)
        text = f"{experiment} is no experiment that can be imported ({why}): jaxdl list"
        raise UserError(text) from error
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, RunConfig)):
        raise UserError(f"{experiment} has no Config of flags: name an experiment (jaxdl list)")
    return config
