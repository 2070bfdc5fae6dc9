"""Opening a run again: its experiment and config from its folder, its state from a checkpoint.

The tools use it: `open_run` finds the experiment and the config, `load_data` the data, and
`restore` the task and the state. A run folder may be a stranger's, so nothing in it is trusted:
only modules of this installation's experiments are imported. Training resumes through
`train.resume`, not through this module.
"""

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

Content = TypeVar("Content")
BEST, NEWEST = "best", "newest"
CHECKPOINTS, NONFINITE = "checkpoints", "nonfinite"  # subfolders that hold checkpoints


class Run(NamedTuple):
    """An opened run.

    Attributes:
      folder: the run folder.
      experiment: the experiment's module, which has Config, load and build.
      config: the config of the chosen checkpoint, with the user's changes.
      checkpoint: `best`, `newest` or a step.
      given: names of the fields that the user has changed.
    """

    folder: Path
    experiment: Any
    config: RunConfig
    checkpoint: str
    overridden: frozenset[str]


class Restored(NamedTuple):
    """A run's task and its state at a checkpoint.

    Attributes:
      task: the task.
      saved: the checkpoint; its `state` is the task's state.
      spec: the description of the data.
    """

    task: Task
    saved: Saved
    spec: DataSpec


def open_run(
    folder: Path, checkpoint: str = BEST, *, kept: str = CHECKPOINTS, **changes: Any
) -> Run:
    """Opens a run folder.

    The config is that of the checkpoint, which is under SHA-256. If config.json differs or cannot
    be read, a notice goes to stderr. It decides only what changes no bit of a result, such as
    --data_dir.

    Args:
      folder: the run folder.
      checkpoint: `best`, `newest` or a step.
      kept: subfolder with the checkpoints.
      **changes: new values of runtime fields such as data_dir, or of `dataset` if the run's is a
        folder of images.

    Raises:
      UserError: the folder is not a run folder, has no such checkpoint, or names an experiment that
        this installation lacks; or as in `files.check_encoding`.
    """
    files.check_encoding(folder.absolute())
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name that of a run")
    files.check_no_links(folder, workdir.WRITTEN)
    checkpointed = None
    checkpoints = Checkpoints(folder / kept)
    if checkpoints.steps():
        record = _read_chosen(checkpoints, checkpoint, checkpoints.record)
        checkpointed = workdir.config_of_record(record)
    name = str((checkpointed or files.read_json(folder / workdir.CONFIG)).get("experiment"))
    experiment = _import_experiment(folder, name)
    runtime_fields = saved_config.runtime_fields(experiment.Config)
    values, notice = workdir.read_config(folder, checkpointed, runtime_fields)
    if notice:
        say(notice)
    _check_changes(folder, changes, values, runtime_fields)
    # The run's own devices do not matter: this process opens it alone, on the local devices.
    local = {"mesh": "", "fsdp": False, **configs.SINGLE_PROCESS}
    lenient = checkpointed is not None
    config = _make_config(experiment.Config, values, runtime_fields, lenient, local | changes)
    _warn_of_own_data(folder, config, changes)
    return Run(folder, experiment, config, checkpoint, frozenset(changes))


def load_data(run: Run) -> Dataset:
    """Loads the data that a run's config names.

    Data are not downloaded to a folder that the run's own config chooses.

    Args:
      run: an opened run.

    Raises:
      UserError: the dataset is not in the run's --data_dir, and loading would prepare it there.
    """
    config = run.config
    is_own_folder = config.data_dir and "data_dir" not in run.overridden
    if is_own_folder and prepare.is_lacking(config.dataset, config.data_dir):
        raise UserError(
            f"{run.folder} names --data_dir={shortened(config.data_dir)}, and {config.dataset} is "
            "not there: give --data_dir=FOLDER that has it, or where it may be prepared"
        )
    data: Dataset = run.experiment.load(config)
    return data


def restore(run: Run) -> Restored:
    """Restores the task and the state of an opened run, without loading its data.

    Args:
      run: an opened run.

    Raises:
      UserError: the checkpoint is damaged, or the run has continued under another config meanwhile.
    """
    checkpoints = Checkpoints(run.folder / CHECKPOINTS)
    if newest := checkpoints.newest_record():
        environment.check_settings(newest["versions"], str(run.folder))
    record = _read_chosen(checkpoints, run.checkpoint, checkpoints.record)
    description = data_spec(run, record)
    run.config.steps_per_epoch(description.num_train)  # refuses a batch that no memory holds
    task, like = build_task(run, description)
    restore_state = partial(checkpoints.restore, like=like, part=".state")  # of the loop's state
    saved = _read_chosen(checkpoints, run.checkpoint, restore_state)
    check_same(run, saved)
    if saved.record["data"] != record["data"]:
        raise UserError(
            f"{run.folder} has continued with other data meanwhile: give the same command again"
        )
    return Restored(task, saved, description)


def choose_checkpoint(checkpoints: Checkpoints, checkpoint: str) -> int:
    """Returns the step of the checkpoint that `best`, `newest` or a number names.

    Args:
      checkpoints: the run's checkpoints.
      checkpoint: `best`, `newest` or a step.

    Raises:
      UserError: there is no such checkpoint.
    """
    steps = checkpoints.steps()
    choices = {str(step): step for step in steps}
    if steps:
        choices[NEWEST] = steps[-1]
        try:
            best = checkpoints.record(steps[-1])["best"]["step"]
            if best in steps:  # there is no best before the first evaluation
                choices[BEST] = best
        except DamagedError as error:
            if checkpoint == BEST:  # an older record has only the best of its time
                others = ", ".join(map(str, steps[:-1])) or "there is none"
                text = f"{error}, and it names the best: choose another --checkpoint ({others})"
                raise UserError(text) from error
    if checkpoint not in choices:
        has = ", ".join(choices) or "none yet: train it first"
        raise UserError(f"--checkpoint={checkpoint}: {checkpoints.folder.parent} has {has}")
    return choices[checkpoint]


def data_spec(run: Run, record: dict[str, Any]) -> DataSpec:
    """Returns the description of the data that a checkpoint was trained on.

    The description in the run folder is used if the checkpoint has its SHA-256. Otherwise the data
    are loaded and must be the checkpoint's own.

    Args:
      run: an opened run.
      record: the checkpoint's record. It has no SHA-256 if the run is from before there was a file
        with the description.

    Raises:
      UserError: the data have to be loaded, and are missing or differ.
    """
    try:
        text, tokenizer = (_read_text(run.folder / name) for name in (spec.NAME, spec.TOKENIZER))
        if not record["data"]:
            raise UserError(f"{run.folder} was made before runs had a {spec.NAME}")
        if hashlib.sha256(text.encode()).hexdigest() != record["data"]:
            raise UserError(
                f"{run.folder / spec.NAME} is not that of the checkpoint of step {record['step']}"
            )
        return DataSpec.from_json(text, tokenizer)
    except UserError as error:
        say(f"{error}: the data are loaded to describe them")
        description = load_data(run).spec
        if description.fingerprint != record["identity"].get(workdir.DATA):
            raise UserError(
                f"{error}, and {description.source or description.name} has other bytes than the "
                f"checkpoint of step {record['step']} was trained on: name the place of those with "
                "--data_dir or --dataset, or bring the file back"
            ) from error
        return description


def build_task(run: Run, description: DataSpec) -> tuple[Task, Any]:
    """Builds the task of an opened run.

    Args:
      run: an opened run.
      description: description of the run's data.

    Returns:
      The task, and the shapes and shardings of its state.

    Raises:
      UserError: the task cannot be built from this description.
    """
    try:
        task: Task = run.experiment.build(run.config, description)
        shapes = jax.eval_shape(task.init, jax.random.key(0))
    except UserError:
        raise
    except Exception as error:  # a stranger's description may cause any error in the experiment
        raise UserError(
            f"{run.folder} cannot be rebuilt from its {spec.NAME} ({first_line(error)}): its "
            f"command, with --workdir={run.folder}, writes it again"
        ) from error
    return task, sharding.with_sharding(shapes, sharding.replicated(sharding.mesh(run.config)))


def check_same(run: Run, saved: Saved) -> None:
    """Checks that a checkpoint has the config that an opened run was opened with.

    Args:
      run: an opened run.
      saved: the checkpoint.

    Raises:
      UserError: the run has continued under another config meanwhile.
    """
    stored = workdir.config_of_record(saved.record)
    identity = saved_config.identity(run.config)
    opened = {name: value for name, value in identity.items() if name in stored}
    differing = saved_config.differences(opened, stored)
    if differing:
        raise UserError(
            f"{run.folder} has continued under another config ({'; '.join(differing)}) meanwhile: "
            "give the same command again"
        )


def _import_experiment(folder: Path, name: str) -> Any:
    """Imports the experiment that a run folder names.

    Args:
      folder: the run folder, for the message.
      name: name of the experiment's module.

    Raises:
      UserError: the module is not an experiment, or is not installed.
    """
    # The name comes from a file, so only experiments are imported.
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


def _check_changes(
    folder: Path, changes: dict[str, Any], values: dict[str, Any], runtime_fields: set[str]
) -> None:
    """Checks that a run has the fields that the user changes, and that they may be changed.

    Args:
      folder: the run folder, for the message.
      changes: the user's values.
      values: the run's fields.
      runtime_fields: names of the fields that may be changed.

    Raises:
      UserError: a field is not a runtime field of the run; or `dataset` is not a folder of images,
        in the run or in the change.
    """
    for name, value in changes.items():
        if name == "dataset":
            here = configs.absolute(value, name)
            if not (is_folder(value) and saved_config.is_moved(values, {"dataset": here})):
                raise UserError(
                    f"--dataset={value}: {folder} is a run on {shortened(values.get(name))}, and "
                    "only a folder of images, /PATH or ./PATH, can be elsewhere: leave it out"
                )
        elif name not in runtime_fields:
            raise UserError(f"--{name}={value}: {folder} is a run without it: leave it out")


def _make_config(
    config_class: type[RunConfig],
    values: dict[str, Any],
    runtime_fields: set[str],
    lenient: bool,
    changes: dict[str, Any],
) -> RunConfig:
    """Makes a config from a run's fields.

    Args:
      config_class: the experiment's Config.
      values: the run's fields.
      runtime_fields: names of the runtime fields.
      lenient: whether an invalid runtime field gets its default and a notice on stderr.
      changes: fields that replace those of the run.

    Raises:
      UserError: a field is unknown, has the wrong type or is out of its range.
    """
    try:  # all fields at once: the range of a field may depend on another
        return saved_config.from_dict(config_class, values | changes)
    except UserError:
        if not lenient:
            raise
    decisive = {name: value for name, value in values.items() if name not in runtime_fields}
    config = saved_config.from_dict(config_class, decisive | changes)
    for name in sorted(runtime_fields & values.keys() - changes.keys()):
        try:
            value = getattr(saved_config.from_dict(config_class, {name: values[name]}), name)
        except UserError as error:
            say(f"{workdir.CONFIG}: {error}; its default is used")
            continue
        config = dataclasses.replace(config, **{name: value})
    return config


def _warn_of_own_data(folder: Path, config: RunConfig, changes: dict[str, Any]) -> None:
    """Warns of each path in a run's config that leads into the run folder itself.

    Whoever made the folder also made such data.
    """
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


def _read_chosen(
    checkpoints: Checkpoints, checkpoint: str, read: Callable[[int], Content]
) -> Content:
    """Reads the checkpoint that the user chose.

    Args:
      checkpoints: the run's checkpoints.
      checkpoint: `best`, `newest` or a step.
      read: function from a step to the content to read.

    Raises:
      UserError: there is no such checkpoint, or it is damaged.
    """
    while True:
        step = choose_checkpoint(checkpoints, checkpoint)
        try:
            return read(step)
        except DamagedError as error:
            steps = checkpoints.steps()
            if step in steps:  # otherwise an active run has just deleted it: choose again
                others = ", ".join(str(other) for other in steps if other != step)
                text = f"{error}: choose another --checkpoint ({others or 'there is none'})"
                raise UserError(text) from error


def _read_text(path: Path) -> str:
    """Reads a file of a run folder as text; empty if the file is missing.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        return files.read_bytes(path, files.LARGEST_JSON).decode("utf-8", "surrogatepass")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"cannot read {path} ({why})") from error
