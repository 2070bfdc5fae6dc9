"""A run, opened again: its experiment rebuilt from its own config, its state from a checkpoint."""

import dataclasses
import hashlib
import importlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from jaxdl import config as configs
from jaxdl import files, saved_config
from jaxdl.config import RunConfig
from jaxdl.console import say
from jaxdl.data import prepare, spec
from jaxdl.data.batches import Dataset
from jaxdl.data.images import is_folder
from jaxdl.data.spec import DataSpec
from jaxdl.distributed import sharding
from jaxdl.errors import UserError, first_line, shortened
from jaxdl.run import environment, workdir
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.checkpoint_record import DamagedError, Saved
from jaxdl.task import Task

Found = TypeVar("Found")
BEST, NEWEST = "best", "newest"
CHECKPOINTS, NONFINITE = "checkpoints", "nonfinite"  # folders of a run that hold checkpoints


class Run(NamedTuple):
    """A run folder, its experiment's module, and the config that one of its checkpoints holds."""

    folder: Path
    experiment: Any  # module with Config, load and build
    config: RunConfig
    checkpoint: str  # `best`, `newest` or a step
    given: frozenset[str]  # fields that the user has named, in the place of the run's own


def open_run(
    folder: Path, checkpoint: str = BEST, *, kept: str = CHECKPOINTS, **changes: Any
) -> Run:
    """Opens a run folder: the config is that of a checkpoint, which is under SHA-256.

    A config.json that says something else, or that cannot be read, is named on stderr. It decides
    only what changes no bit of a result, such as --data_dir.

    Args:
      folder: of the run.
      checkpoint: `best`, `newest` or a step.
      kept: the folder in it whose checkpoints are meant.
      changes: replace fields that are places, such as data_dir, or the dataset that is a folder.

    Raises:
      UserError: it is not a run folder, has no such checkpoint, or its experiment is not one of
        this installation; or as of `files.check_encoding`.
    """
    files.check_encoding(folder.absolute())
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name that of a run")
    files.refuse_links(folder, workdir.WRITTEN)
    known = None
    checkpoints = Checkpoints(folder / kept)
    if checkpoints.steps():
        known = workdir.config_of_record(_chosen(checkpoints, checkpoint, checkpoints.record))
    name = str((known or files.read_json(folder / workdir.CONFIG)).get("experiment"))
    experiment = _experiment(folder, name)
    places = saved_config.runtime_fields(experiment.Config)
    values, notice = workdir.read_config(folder, known, places)
    if notice:
        say(notice)
    # Where it ran is no matter: it is opened by this process alone, on the devices that are here.
    _check_places(folder, changes, values, places)
    here = {"mesh": "", "fsdp": False, **configs.ALONE}
    config = _config(experiment.Config, values, places, known is not None, here | changes)
    _say_what_lies_inside(folder, config, changes)
    return Run(folder, experiment, config, checkpoint, frozenset(changes))


def _experiment(folder: Path, name: str) -> Any:
    """The module of an experiment that a run folder names.

    Raises:
      UserError: it is none of this installation's experiments.
    """
    # The name comes from a file: import nothing but experiments.
    if not re.fullmatch(r"experiments(\.[A-Za-z_]\w{,99}){1,9}", name):
        raise UserError(
            f"{folder} is a run of {shortened(name)!r}, and only modules in experiments/ can be "
            "opened again: put its file there and train by python -m experiments.NAME"
        )
    try:
        experiment = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{folder} is a run of {name}, which is not here ({error}): put its file into "
            "experiments/"
        ) from error
    if not all(hasattr(experiment, part) for part in ("Config", "load", "build")):
        raise UserError(f"{name} lacks Config, load or build, so its run cannot be rebuilt")
    return experiment


def _check_places(
    folder: Path, changes: dict[str, Any], values: dict[str, Any], places: set[str]
) -> None:
    """Refuses the place of something that a run has not.

    Raises:
      UserError: a field is no place of the run's; or the data set is no folder, there or here.
    """
    for name, value in changes.items():
        if name == "dataset":
            here = configs.absolute(value, name)
            if not (is_folder(value) and saved_config.is_moved(values, {"dataset": here})):
                raise UserError(
                    f"--dataset={value}: {folder} is a run on {shortened(values.get(name))}, and "
                    "only a folder of images, /PATH or ./PATH, can be elsewhere: leave it out"
                )
        elif name not in places:
            raise UserError(f"--{name}={value}: {folder} is a run without it: leave it out")


def _config(
    cls: type[RunConfig],
    values: dict[str, Any],
    places: set[str],
    lenient: bool,
    changes: dict[str, Any],
) -> RunConfig:
    """A config from a run's fields; `lenient`: a place that cannot be has its default, and a line.

    Raises:
      UserError: a field is unknown, has the wrong type or is out of its range.
    """
    try:  # all at once: a field may ask for another
        return saved_config.from_dict(cls, values | changes)
    except UserError:
        if not lenient:
            raise
    config = saved_config.from_dict(
        cls, {n: v for n, v in values.items() if n not in places} | changes
    )
    for name in sorted(places & values.keys() - changes.keys()):
        try:
            place = getattr(saved_config.from_dict(cls, {name: values[name]}), name)
        except UserError as error:
            say(f"{workdir.CONFIG}: {error}; its default is used")
            continue
        config = dataclasses.replace(config, **{name: place})
    return config


def _say_what_lies_inside(folder: Path, config: RunConfig, changes: dict[str, Any]) -> None:
    """Names each flag by which a run folder leads its reader to files in that folder itself."""
    inside = folder.resolve()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in changes or not isinstance(value, str) or not value.startswith("/"):
            continue
        if field.name != "workdir" and Path(value).resolve().is_relative_to(inside):
            say(
                f"{folder} has --{field.name}={value}, which lies in the run folder itself: its "
                "data are from whoever made the folder"
            )


def load_data(run: Run) -> Dataset:
    """The data that a run's config names now.

    A run's own config does not choose a place that data are downloaded to.

    Raises:
      UserError: its data set is not in the folder that it names, and could be prepared there.
    """
    config = run.config
    theirs = config.data_dir and "data_dir" not in run.given
    if theirs and prepare.is_lacking(config.dataset, config.data_dir):
        raise UserError(
            f"{run.folder} names --data_dir={shortened(config.data_dir)}, and {config.dataset} is "
            "not there: give --data_dir=FOLDER that has it, or may have it"
        )
    data: Dataset = run.experiment.load(config)
    return data


def _chosen(checkpoints: Checkpoints, checkpoint: str, read: Callable[[int], Found]) -> Found:
    """Reads, by `read`, the step that `checkpoint` means.

    Raises:
      UserError: it is damaged.
    """
    while True:
        step = choose_checkpoint(checkpoints, checkpoint)
        try:
            return read(step)
        except DamagedError as error:
            if step in checkpoints.steps():  # else a run that goes on has deleted it just now
                has = ", ".join(str(other) for other in checkpoints.steps() if other != step)
                text = f"{error}: choose another --checkpoint ({has or 'there is none'})"
                raise UserError(text) from error


def choose_checkpoint(checkpoints: Checkpoints, checkpoint: str) -> int:
    """The step that `best`, `newest` or a number means.

    Raises:
      UserError: there is no such checkpoint.
    """
    steps = checkpoints.steps()
    named = {str(step): step for step in steps}
    if steps:
        named[NEWEST] = steps[-1]
        try:
            best = checkpoints.record(steps[-1])["best"]["step"]
            if best in steps:  # there is none before the first evaluation
                named[BEST] = best
        except DamagedError as error:
            if checkpoint == BEST:  # an older one knows only what was best in its time
                has = ", ".join(map(str, steps[:-1])) or "there is none"
                text = f"{error}, and it knows the best: choose another --checkpoint ({has})"
                raise UserError(text) from error
    if checkpoint not in named:
        has = ", ".join(named) or "none yet: train it first"
        raise UserError(f"--checkpoint={checkpoint}: {checkpoints.folder.parent} has {has}")
    return named[checkpoint]


def data_spec(run: Run, known: dict[str, Any]) -> DataSpec:
    """The description of the data that a checkpoint was trained on.

    It is the run folder's, where that is the one under the checkpoint's SHA-256; else the data are
    read, which have to be the checkpoint's own.

    Args:
      run: an opened run.
      known: the checkpoint's record; of a run from before there was a description it has none.

    Raises:
      UserError: the data have to be read, and are not there, or are others.
    """
    try:
        text, tokenizer = (_text(run.folder / name) for name in (spec.NAME, spec.TOKENIZER))
        if not known["data"]:
            raise UserError(f"{run.folder} was made before runs had a {spec.NAME}")
        if hashlib.sha256(text.encode()).hexdigest() != known["data"]:
            raise UserError(
                f"{run.folder / spec.NAME} is not that of the checkpoint of step {known['step']}"
            )
        return DataSpec.from_json(text, tokenizer)
    except UserError as error:
        say(f"{error}: its data are described anew")
        described = load_data(run).spec
        if described.fingerprint != known["identity"].get(workdir.DATA):
            raise UserError(
                f"{error}, and {described.source or described.name} has other bytes than the "
                f"checkpoint of step {known['step']} was trained on: name the place of those with "
                "--data_dir or --dataset, or bring the file back"
            ) from error
        return described


def _text(path: Path) -> str:
    """A file of a run folder as text; empty where there is none."""
    try:
        return files.read_bytes(path, files.LARGEST_JSON).decode("utf-8", "surrogatepass")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"cannot read {path} ({why})") from error


def build_task(run: Run, description: DataSpec) -> tuple[Task, Any]:
    """A run's task, and the shapes and shardings of its state.

    Raises:
      UserError: it cannot be built from this description of the data.
    """
    try:
        task: Task = run.experiment.build(run.config, description)
        shapes = jax.eval_shape(task.init, jax.random.key(0))
    except UserError:
        raise
    except Exception as error:  # a stranger's description: whatever the experiment makes of it
        raise UserError(
            f"{run.folder} cannot be rebuilt from its {spec.NAME} ({first_line(error)}): its "
            f"command, with --workdir={run.folder}, writes it again"
        ) from error
    return task, sharding.placed(shapes, sharding.replicated(sharding.mesh(run.config)))


class Restored(NamedTuple):
    """A run's task, its state at a checkpoint, and the description of its data."""

    task: Task
    saved: Saved
    spec: DataSpec


def restore(run: Run) -> Restored:
    """A run's task, and its state at the checkpoint that it was opened at, without its data.

    Raises:
      UserError: the checkpoint is damaged, or the run went on under another config meanwhile.
    """
    checkpoints = Checkpoints(run.folder / CHECKPOINTS)
    if newest := checkpoints.newest_record():
        environment.check_settings(newest["versions"], str(run.folder))
    known = _chosen(checkpoints, run.checkpoint, checkpoints.record)
    description = data_spec(run, known)
    run.config.steps_per_epoch(description.num_train)  # refuses a batch that no memory holds
    task, like = build_task(run, description)
    restore = partial(checkpoints.restore, like=like, part=".state")  # of the loop's
    saved = _chosen(checkpoints, run.checkpoint, restore)
    check_same(run, saved)
    if saved.record["data"] != known["data"]:
        raise UserError(f"{run.folder} goes on with other data: the same command again reads those")
    return Restored(task, saved, description)


def check_same(run: Run, saved: Saved) -> None:
    """Holds an opened run's config against that of a checkpoint.

    Raises:
      UserError: the run went on under another config meanwhile.
    """
    there = workdir.config_of_record(saved.record)
    here = {name: v for name, v in saved_config.identity(run.config).items() if name in there}
    differing = saved_config.differences(here, there)
    if differing:
        raise UserError(
            f"{run.folder} goes on under another config ({'; '.join(differing)}): the same command "
            "again reads that one"
        )
