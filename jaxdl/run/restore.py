"""Restoring an opened run: its data, its task, and its state at a checkpoint.

The tools use it: `run_folder.open_run` finds the experiment and the config, `load_data` the data,
and `restore` the task and the state. Training resumes through `train.resume`, not through this
module.
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdl import files, saved_config
from jaxdl.console import say
from jaxdl.data import prepare, spec
from jaxdl.data.batches import Dataset
from jaxdl.data.spec import DataSpec
from jaxdl.distributed import sharding
from jaxdl.errors import UserError, first_line, shortened
from jaxdl.run import environment, workdir
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.checkpoint_record import Saved
from jaxdl.run.run_folder import CHECKPOINTS, Run, read_chosen
from jaxdl.task import Task


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
    record = read_chosen(checkpoints, run.checkpoint, checkpoints.record)
    description = data_spec(run, record)
    run.config.steps_per_epoch(description.num_train)  # refuses a batch that no memory holds
    task, like = build_task(run, description)
    restore_state = partial(checkpoints.restore, like=like, part=".state")  # of the loop's state
    saved = read_chosen(checkpoints, run.checkpoint, restore_state)
    check_same(run, saved)
    here = environment.source_digest(run.config)
    if saved.record["versions"].get(environment.SOURCE, here) != here:
        say(f"{run.experiment.__name__} was changed since this checkpoint: results may differ")
    if saved.record["data"] != record["data"]:
        raise UserError(
            f"{run.folder} has continued with other data meanwhile: give the same command again"
        )
    return Restored(task, saved, description)


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
