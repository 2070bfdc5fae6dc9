"""Opening a run folder: its experiment, and the config that one of its checkpoints holds.

`restore` builds the task from both and loads the state. A run folder may be a stranger's, so
nothing in it is trusted: only modules of this installation's experiments are imported.
"""

import dataclasses
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jaxdl import config as configs
from jaxdl import files, saved_config
from jaxdl.config import RunConfig
from jaxdl.console import say
from jaxdl.data.images import is_folder
from jaxdl.errors import UserError, shortened
from jaxdl.run import workdir
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.checkpoint_record import DamagedError

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
      overridden: names of the fields that the user has changed.
    """

    folder: Path
    experiment: Any
    config: RunConfig
    checkpoint: str
    overridden: frozenset[str]


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
    workdir.check_no_links(folder)
    checkpointed = None
    checkpoints = Checkpoints(folder / kept)
    if checkpoints.steps():
        record = read_chosen(checkpoints, checkpoint, checkpoints.record)
        checkpointed = workdir.config_of_record(record)
    name = str((checkpointed or files.read_json(folder / workdir.CONFIG)).get("experiment"))
    experiment = import_experiment(folder, name)
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


def import_experiment(folder: Path, name: str) -> Any:
    """Imports the experiment that a run folder or a file of results names.

    Args:
      folder: the run folder or file, for the message.
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
        is_there = error.name is None or not f"{name}.".startswith(f"{error.name}.")
        raise UserError(
            f"{folder} is a run of {name}, which "
            + (
                f"cannot be imported here ({error}): install what it imports"
                if is_there
                else f"is not here ({error}): put its file into experiments/"
            )
        ) from error
    missing = [part for part in ("Config", "load", "build") if not hasattr(experiment, part)]
    if missing:
        raise UserError(
            f"{name} lacks {', '.join(missing)}: an experiment that is opened again has Config, "
            "load and build under these names"
        )
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
      UserError: a field is not a runtime field of the run; or `dataset` is not a path in the run or
        in the change.
    """
    for name, value in changes.items():
        if name == "dataset":
            here = configs.absolute(value, name)
            if not (is_folder(value) and saved_config.is_moved(values, {"dataset": here})):
                raise UserError(
                    f"--dataset={value}: {folder} is a run on {shortened(values.get(name))}, and "
                    "only data with a path, /PATH or ./PATH, can be elsewhere: leave it out"
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


def read_chosen(
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
