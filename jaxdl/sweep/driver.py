"""Driver of a sweep: plans its trials and has an engine run those that are not done."""

import hashlib
import importlib
import json
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
from jaxdl.sweep import (
    grid,
    ledger,
    local,
    optuna_search,
    outcome,
    pbt,
    population,
    ray,
    search,
    slurm,
)
from jaxdl.sweep.ledger import Ledger
from jaxdl.sweep.study import Search, Study

# Trials, each with the fields of its config that determine the result.
Trials = list[tuple[grid.Trial, dict[str, Any]]]
ENDED = ("done", "paused")  # states of trials that a round need not run
RESERVED = ("workdir", "resume", "dry_run", "pause_at")  # flags that a sweep sets for its trials


class Options(NamedTuple):
    """Options of a sweep.

    Attributes:
      engine: local, population, slurm or ray.
      jobs: trials at a time; 0: as many as the engine has room for.
      draws: combinations of flag values to draw; 0: all of them.
      retries: restarts of a trial that was killed.
      cpus: CPUs per trial, for Slurm and Ray; 0: one.
      gpus: GPUs per trial, for Slurm and Ray.
      workdir: folder of the sweep; empty: derived from its flags by `sweep_folder`.
      mapping: how the members of a population take their steps, see `jaxdl.train.population`.
      search: strategy that decides which trials go on.
    """

    engine: str
    jobs: int
    draws: int
    retries: int
    cpus: int
    gpus: int
    workdir: str
    mapping: str = "auto"
    search: Search = Search()


def sweep(experiment: str, flags: list[str], fixed: list[str], options: Options) -> None:
    """Runs the trials of a sweep that are not done yet.

    Args:
      experiment: module name, such as `experiments.mnist_lenet`.
      flags: flags of the experiment, with lists and ranges (see `grid.trials`).
      fixed: flags passed to every trial unchanged.
      options: engine, folder and resources.

    Raises:
      UserError: a flag is wrong in any of the trials, the folder holds something else, or the
        engine is not installed.
      TrainingError: trials failed.
    """
    trials = plan(experiment, flags, fixed, options.draws)
    folder = sweep_folder(experiment, flags, fixed, options)
    _check(folder, options)
    search.check(study_of(folder, experiment, flags, trials, options))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder / ".lock")
    except OSError as error:
        raise UserError(f"--workdir={folder} cannot be written ({error.strerror})") from error
    with lock:
        try:
            _run(study_of(folder, experiment, flags, trials, options), options)
        except OSError as error:
            text = f"{first_line(error)}: fix this, and the same command goes on"
            raise TrainingError(text) from error


def _check_options(options: Options) -> None:
    """Checks that the options go with the engine.

    Raises:
      UserError: they do not.
    """
    if options.engine in ("local", "population") and (options.cpus or options.gpus):
        raise UserError(
            "--cpus and --gpus are for Slurm and Ray: leave them out; local --jobs share the CPUs, "
            "and each has a GPU of its own if there are any"
        )
    if options.engine != "population" and options.mapping != "auto":
        raise UserError(f"--map={options.mapping} is for --engine=population: leave it out")


def _check(folder: Path, options: Options) -> None:
    """Checks, before anything is written, that the sweep can run in its folder.

    Raises:
      UserError: it cannot.
    """
    _check_options(options)
    if options.engine == "slurm":
        slurm.check()
    if options.engine == "ray":
        ray.check()
    own: tuple[str, ...] = (ledger.NAME, ledger.TRIALS, ledger.LOGS, ledger.PICTURE, slurm.FOLDER)
    own += pbt.NAME, optuna_search.JOURNAL
    files.check_no_links(folder, (*own, ".lock"), depth=1)  # trials check their own folders
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    others = [name for name in names if name not in own and name[0] != "."]
    if not all(name.startswith(optuna_search.LOCK) for name in others):
        raise UserError(f"--workdir={folder} holds other files: give a new or empty folder")


def plan(experiment: str, flags: list[str], fixed: list[str], draws: int) -> Trials:
    """Plans the trials of a sweep.

    Args:
      experiment: module name.
      flags: flags of the experiment, with lists and ranges.
      fixed: flags passed to every trial unchanged.
      draws: combinations to draw; 0: all of them.

    Returns:
      The trials, each with the fields of its config that determine the result.

    Raises:
      UserError: there is no such experiment, or it refuses the flags of a trial.
    """
    for flag in (*flags, *fixed):
        if flag.lstrip("-").split("=")[0] in RESERVED and flag[:1] == "-":
            raise UserError(f"{flag}: a sweep sets this flag for its trials: leave it out")
    config = _config(experiment)
    planned_trials = []
    for trial in grid.trials(config, flags, fixed, draws):
        parsed = parse_flags(config, trial.flags)
        if parsed is None:
            raise UserError(f"--help: use python -m {experiment} --help")
        planned_trials.append((trial, saved_config.identity(parsed)))
    return planned_trials


def study_of(
    folder: Path, experiment: str, flags: list[str], trials: Trials, options: Options
) -> Study:
    """Study of a sweep's trials, with what its folder has of them.

    Raises:
      UserError: the folder holds a sweep of something else.
    """
    book, config = Ledger.read(folder), _config(experiment)
    names = book.add(experiment, trials)
    return Study(options.search, book, names, config, grid.axes(config, flags))


def commands(experiment: str, flags: list[str], fixed: list[str], options: Options) -> list[str]:
    """Shell commands of the trials of the first round; arguments as for `sweep`."""
    trials = plan(experiment, flags, fixed, options.draws)
    folder = sweep_folder(experiment, flags, fixed, options)
    _check_options(options)
    study = study_of(folder, experiment, flags, trials, options)
    search.check(study)
    study.book.lines = {name: study.line(name) for name in study.names}  # without copies
    targets = next(search.rounds(study))
    for name, step in targets.items():
        study.book.pause(name, step)
    return [study.line(name)["command"] for name in targets]


def sweep_folder(experiment: str, flags: list[str], fixed: list[str], options: Options) -> Path:
    """Folder of a sweep: --workdir, or a name derived from its flags.

    The same command started again gets the same folder.
    """
    if options.workdir:
        return Path(configs.absolute(options.workdir, "workdir"))
    searched = [options.search] if options.search.method else []
    text = json.dumps([experiment, sorted(flags), fixed, options.draws, *searched])
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Path(configs.absolute(f"runs/{experiment.rpartition('.')[2]}/sweep-{digest}"))


def _run(study: Study, options: Options) -> None:
    """Updates the states of the trials, and runs the rounds of the search.

    Raises:
      TrainingError: trials of a sweep without a search failed, or a search cannot go on.
      Stopped: a signal stopped the trials.
    """
    book, names = study.book, study.names
    for name in names:
        _update(book, name, options)
    search.begin(study)
    book.write()
    done = [book.lines[name]["state"] for name in names].count("done")
    say(f"sweep: {book.folder}, {len(names)} trials, {done} of them done")
    for targets in search.rounds(study):
        for name, step in targets.items():
            book.pause(name, step)
            _update(book, name, options)
        book.write()
        pending = [name for name in targets if book.lines[name]["state"] not in ENDED]
        _run_pending(study, pending, options)
    failed = [name for name in names if book.lines[name]["state"] == "failed"]
    if failed and not study.search.method:
        raise TrainingError(
            f"{len(failed)} of {len(names)} trials failed ({', '.join(failed[:3])}"
            f"{', ...' if failed[3:] else ''}): the same command runs them again"
        )


def _update(book: Ledger, name: str, options: Options) -> None:
    """Updates the state of a trial from its run folder."""
    result = outcome.result(book.lines[name])
    queued = options.engine == "slurm" and book.lines[name]["state"] == "queued"
    book.lines[name].update(result or ({} if queued else {"state": "waiting"}))


def _run_pending(study: Study, pending: list[str], options: Options) -> None:
    """Has the engine run trials until each is done, paused or failed.

    Raises:
      Stopped: a signal stopped them.
    """
    book, jobs, retries, cpus = study.book, options.jobs, options.retries, options.cpus or 1
    try:
        if options.engine == "slurm":
            slurm.submit(book, pending, jobs, cpus, options.gpus)
        elif not pending:
            return
        elif options.engine == "ray":
            ray.run(book, pending, jobs, retries, cpus, options.gpus)
        elif options.engine == "population":
            population.run(book, pending, study.config_class, options.mapping, retries, jobs)
        else:
            local.run(book, pending, jobs, retries)
    except Stopped as stop:
        number = stop.status - 128
        done = [book.lines[name]["state"] for name in study.names].count("done")
        raise Stopped(
            number,
            f"stopped by signal {number}; {done} of {len(study.names)} trials are done: the same "
            "command goes on",
        ) from stop


def _config(experiment: str) -> type[RunConfig]:
    """Config class of an experiment.

    Raises:
      UserError: there is no such experiment.
    """
    try:
        module: Any = importlib.import_module(experiment)
    except Exception as error:  # a module may raise anything when it is imported
        why = first_line(error)
        name = Path(experiment).stem if experiment.endswith(".py") else experiment
        similar = [n for n in (name, f"experiments.{name}") if n != experiment]
        hint = f"such as {similar[-1]}; jaxdl list has all" if similar else "jaxdl list has all"
        text = f"{experiment} cannot be imported ({why}): name an experiment's module ({hint})"
        raise UserError(text) from error
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, RunConfig)):
        raise UserError(
            f"{experiment} has no class Config of flags: name it so, or name another experiment "
            "(jaxdl list)"
        )
    return config
