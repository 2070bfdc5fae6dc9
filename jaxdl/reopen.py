"""A run, opened again: its experiment rebuilt from its own config, its state from a checkpoint."""

import dataclasses
import importlib
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from jaxdl import config as configs
from jaxdl import (
    environment,
    files,
    finite,
    metrics,
    metrics_log,
    parallel,
    plots,
    record,
    saved_config,
)
from jaxdl.checkpoint import Checkpoints, DamagedError, Saved
from jaxdl.config import RunConfig
from jaxdl.data import batches, prepare
from jaxdl.data.batches import Dataset
from jaxdl.data.images import is_folder
from jaxdl.errors import UserError, first_line, shortened
from jaxdl.evaluate import evaluator
from jaxdl.progress import say
from jaxdl.supervised import evaluated
from jaxdl.task import Task
from jaxdl.text.characters import Text
from jaxdl.text.generation import Options, encode, go_on

Found = TypeVar("Found")
BEST, NEWEST = "best", "newest"
CHECKPOINTS, NONFINITE = "checkpoints", "nonfinite"  # folders of a run that hold checkpoints


class Run(NamedTuple):
    """A run folder, its experiment's module, and the config that one of its checkpoints holds."""

    folder: Path
    experiment: Any  # module with Config, load and build
    config: RunConfig
    checkpoint: str  # `best`, `newest` or a step


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
    files.refuse_links(folder, record.WRITTEN)
    known = None
    checkpoints = Checkpoints(folder / kept)
    if checkpoints.steps():
        known = saved_config.of_record(_chosen(checkpoints, checkpoint, checkpoints.record))
    name = str((known or files.read_json(folder / saved_config.NAME)).get("experiment"))
    experiment = _experiment(folder, name)
    places = configs.places(experiment.Config)
    values, notice = saved_config.read(folder, known, places)
    if notice:
        say(notice)
    # Where it ran is no matter: it is opened by this process alone, on the devices that are here.
    _check_places(folder, changes, values, places)
    here = {"mesh": "", "fsdp": False, **configs.ALONE}
    config = _config(experiment.Config, values, places, known is not None, here | changes)
    _say_what_lies_inside(folder, config, changes)
    if "data_dir" not in changes:
        _refuse_to_fetch(folder, config)
    return Run(folder, experiment, config, checkpoint)


def _experiment(folder: Path, name: str) -> Any:
    """The module of an experiment that a run folder names.

    Raises:
      UserError: it is none of this installation's experiments.
    """
    # The name comes from a file: import nothing but experiments.
    if not re.fullmatch(r"experiments(\.[A-Za-z_]\w{,99}){1,9}", name):
        raise UserError(
            f"{folder} names the experiment {shortened(name)!r}: only modules in experiments/ can "
            "be opened again"
        )
    try:
        experiment = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"{folder} is a run of {name}, which is not here: {error}") from error
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
            if not (is_folder(value) and configs.is_moved(values, {"dataset": here})):
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
        return configs.from_dict(cls, values | changes)
    except UserError:
        if not lenient:
            raise
    config = configs.from_dict(cls, {n: v for n, v in values.items() if n not in places} | changes)
    for name in sorted(places & values.keys() - changes.keys()):
        try:
            place = getattr(configs.from_dict(cls, {name: values[name]}), name)
        except UserError as error:
            say(f"{saved_config.NAME}: {error}; its default is used")
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


def _refuse_to_fetch(folder: Path, config: RunConfig) -> None:
    """Keeps a run's own config from choosing a place that data are downloaded to.

    Raises:
      UserError: its data set is not in the folder that it names, and could be prepared there.
    """
    if config.data_dir and prepare.is_lacking(config.dataset, config.data_dir):
        raise UserError(
            f"{folder} names --data_dir={shortened(config.data_dir)}, and {config.dataset} is not "
            "there: give --data_dir=FOLDER that has it, or may have it"
        )


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


def _rebuild(run: Run) -> tuple[Dataset, Task, Any]:
    """A run's data and task, and the shapes and shardings of its state."""
    data: Dataset = run.experiment.load(run.config)
    run.config.steps_per_epoch(batches.size(data.train))  # refuses a batch that no memory holds
    task = run.experiment.build(run.config, data)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    return data, task, parallel.placed(shapes, parallel.replicated(parallel.mesh(run.config)))


def _check_same(run: Run, data: Dataset, saved: Saved) -> None:
    """Holds config and data against those of a checkpoint.

    Raises:
      UserError: the data are other bytes, or the run went on under another config meanwhile.
    """
    if saved.record["identity"].get(saved_config.DATA) != data.fingerprint:
        raise UserError(
            f"{run.folder} was trained on other bytes of {data.name} than those in {data.source}, "
            "or by an older version that split them otherwise: bring them back, name their place "
            "with --data_dir or --dataset, or use the version of its environment.json"
        )
    there = saved_config.of_record(saved.record)
    here = {name: v for name, v in configs.identity(run.config).items() if name in there}
    differing = configs.differences(here, there)
    if differing:
        raise UserError(
            f"{run.folder} goes on under another config ({'; '.join(differing)}): the same command "
            "again reads that one"
        )


def _restored(run: Run) -> tuple[Dataset, Task, Saved]:
    """A run's data and task, and its state at the checkpoint that it was opened at."""
    checkpoints = Checkpoints(run.folder / CHECKPOINTS)
    if record := checkpoints.newest_record():
        environment.check_settings(record["versions"], str(run.folder))
    data, task, like = _rebuild(run)
    restore = partial(checkpoints.restore, like=like, part=".state")  # of the carry
    saved = _chosen(checkpoints, run.checkpoint, restore)
    _check_same(run, data, saved)
    return data, task, saved


def evaluate(run: Run, split: str) -> dict[str, Any]:
    """Evaluates a run's checkpoint, with the figures that the run itself would give.

    Writes `evaluations/SPLIT-STEP.json` into the run folder, and pictures of what is a matrix;
    where it cannot, a line says so.

    Returns:
      The values that are single numbers, `step` and `split`.
    """
    data, task, saved = _restored(run)
    step = saved.step
    say(f"{split} split of {data.name} ({data.source}), checkpoint of step {step}")
    measure = evaluator(task, parallel.mesh(run.config))
    values = measure(saved.state, getattr(data, split), run.config.batch_size)
    found = {"step": step, "split": split, **metrics.scalars(values)}
    folder = run.folder / "evaluations"
    try:
        _keep_evaluation(folder, found, values, data.classes)
    except OSError as error:
        say(f"{folder} cannot be written ({error.strerror}): these figures are not kept")
    except Exception as error:  # of a library that draws: the figures are there
        say(f"no picture in {folder}: {first_line(error)}")
    return found


def _keep_evaluation(
    folder: Path, found: dict[str, Any], values: dict[str, np.ndarray], classes: Sequence[str]
) -> None:
    step, split = found["step"], found["split"]
    folder.mkdir(exist_ok=True)
    text = json.dumps(metrics_log.finite(found), indent=2) + "\n"
    files.write_text(folder / f"{split}-{step}.json", text)
    for name, value in values.items():
        if value.ndim == 2:
            path = folder / f"{split}-{step}-{name}.png"
            plots.matrix(value, f"{split} {name}, step {step}", path, classes)
            say(f"{name} matrix: {path}")


def restored(run: Run) -> tuple[Dataset, Any]:
    """A run's data, and its state at the checkpoint that it was opened at.

    Raises:
      UserError: the checkpoint is damaged, or the data are others.
    """
    data, _, saved = _restored(run)
    return data, saved.state


def generate(run: Run, prompt: str, options: Options) -> str:
    """Text that a run's language model writes after a prompt, prompt included.

    Raises:
      UserError: the run is none of a language model, or the prompt is not of its characters.
    """
    if not hasattr(run.experiment, "network"):
        name = configs.experiment_name(run.config)
        raise UserError(
            f"{run.folder} is a run of {name}, which makes no text: name a run of a language model"
        )
    data, _, saved = _restored(run)
    model = run.experiment.network(run.config, data)
    if not (hasattr(model, "start") and isinstance(data, Text)):
        raise UserError(
            f"{run.folder} has a model that goes on from no prompt: name a run of a language model"
        )
    encode(prompt, data)
    say(f"checkpoint of step {saved.step}")
    return go_on(model, evaluated(saved.state), data, prompt, options)


def replay(run: Run) -> dict[str, Any]:
    """Makes the step again that was not finite and ended a run, from what the run kept of it.

    Returns:
      `step`, `from` (the place where it began), the step's metrics, and the least and greatest
      value of each entry of its batch.

    Raises:
      UserError: no such step was kept.
    """
    kept = Checkpoints(run.folder / NONFINITE)
    if not kept.steps():
        raise UserError(f"{run.folder} kept no step that was not finite: there is none to replay")
    step = kept.steps()[-1]
    data, task, shapes = _rebuild(run)
    few = {name: array[: run.config.batch_size] for name, array in data.train.items()}
    batch = next(batches.padded_batches(few, run.config.batch_size))
    mesh = parallel.mesh(run.config)
    like = shapes, parallel.put(batch, parallel.sharded(mesh))
    saved = kept.restore(step, like)
    _check_same(run, data, saved)
    state, batch = saved.state
    _, found = jax.jit(task.step)(state, batch)
    place = finite.origin(lambda *given: task.step(*given)[1], state, batch)
    return {
        "step": step,
        "from": place or "nowhere: run op by op, all of it is finite",
        **metrics.scalars(metrics.divide(found)),
        **{f"batch {k}": f"{v.min():.6g} to {v.max():.6g}" for k, v in batch.items()},
    }
