"""A run, opened again: its experiment rebuilt from its own config, its state from a checkpoint."""

import importlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdl import config as configs
from jaxdl import finite, metrics, parallel, plots, record
from jaxdl.checkpoint import Checkpoints, DamagedError, Saved
from jaxdl.config import RunConfig
from jaxdl.data import batches
from jaxdl.data.batches import Dataset
from jaxdl.errors import UserError
from jaxdl.evaluate import evaluator
from jaxdl.progress import say
from jaxdl.supervised import evaluated
from jaxdl.task import Task
from jaxdl.text.characters import Text
from jaxdl.text.generation import Options, encode, go_on


class Run(NamedTuple):
    """An experiment's module and the config that a run folder holds."""

    folder: Path
    experiment: Any  # module with Config, load and build
    config: RunConfig


def open_run(folder: Path, **changes: Any) -> Run:
    """Reads a run folder's config; `changes` replace fields that are places, such as data_dir.

    Raises:
      UserError: it is not a run folder, or its experiment is not one of this installation.
    """
    values = record.read_json(folder / "config.json")
    name = str(values.get("experiment"))
    # The name comes from a file: import nothing but experiments.
    if not re.fullmatch(r"experiments(\.[A-Za-z_]\w*)+", name):
        raise UserError(
            f"{folder}/config.json names the experiment {name!r}: only modules in experiments/ "
            "can be opened again"
        )
    try:
        experiment = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"{folder} is a run of {name}, which is not here: {error}") from error
    if not all(hasattr(experiment, part) for part in ("Config", "load", "build")):
        raise UserError(f"{name} lacks Config, load or build, so its run cannot be rebuilt")
    # Where it ran is no matter: it is opened by this process alone, on the devices that are here.
    here = {"mesh": "", "fsdp": False, **configs.ALONE}
    config = configs.from_dict(experiment.Config, values | here | changes)
    return Run(folder, experiment, config)


def choose_checkpoint(run: Run, checkpoint: str) -> int:
    """The step that `best`, `newest` or a number means.

    Raises:
      UserError: there is no such checkpoint.
    """
    checkpoints = Checkpoints(run.folder / "checkpoints")
    steps = checkpoints.steps()
    named = {str(step): step for step in steps}
    if steps:
        named["newest"] = steps[-1]
        best = checkpoints.read(steps[-1])[0]["best"]["step"]
        if best in steps:  # there is none before the first evaluation
            named["best"] = best
    if checkpoint not in named:
        has = ", ".join(named) or "none yet: train it first"
        raise UserError(f"--checkpoint={checkpoint}: {run.folder} has {has}")
    return named[checkpoint]


def _rebuild(run: Run) -> tuple[Dataset, Task, Any]:
    """A run's data and task, and the shapes and shardings of its state."""
    data: Dataset = run.experiment.load(run.config)
    task = run.experiment.build(run.config, data)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    return data, task, parallel.placed(shapes, parallel.replicated(parallel.mesh(run.config)))


def _check_data(run: Run, data: Dataset, saved: Saved) -> None:
    """Holds the data against the fingerprint in a checkpoint.

    Raises:
      UserError: they are other bytes.
    """
    if saved.record["identity"].get("data") != data.fingerprint:
        raise UserError(
            f"{run.folder} was trained on other bytes of {data.name} than those in {data.source}: "
            "bring them back, or name their folder with --data_dir"
        )


def _restored(run: Run, checkpoint: str) -> tuple[Dataset, Task, Saved]:
    """A run's data and task, and its state at the checkpoint that `checkpoint` means."""
    choose_checkpoint(run, checkpoint)  # refuses early
    data, task, like = _rebuild(run)
    checkpoints = Checkpoints(run.folder / "checkpoints")
    while True:
        step = choose_checkpoint(run, checkpoint)
        try:
            saved = checkpoints.restore(step, like, part=".state")  # of the carry
            break
        except DamagedError as error:
            if step in checkpoints.steps():  # else a run that goes on has deleted it just now
                has = ", ".join(str(other) for other in checkpoints.steps() if other != step)
                text = f"{error}: choose another --checkpoint ({has or 'there is none'})"
                raise UserError(text) from error
    _check_data(run, data, saved)
    return data, task, saved


def evaluate(run: Run, checkpoint: str, split: str) -> dict[str, Any]:
    """Evaluates a run's checkpoint, with the figures that the run itself would give.

    Writes `evaluations/SPLIT-STEP.json` into the run folder, and pictures of what is a matrix.

    Returns:
      The values that are single numbers, `step` and `split`.
    """
    data, task, saved = _restored(run, checkpoint)
    step = saved.step
    say(f"{split} split of {data.name} ({data.source}), checkpoint of step {step}")
    measure = evaluator(task, parallel.mesh(run.config))
    values = measure(saved.state, getattr(data, split), run.config.batch_size)
    found = {"step": step, "split": split, **metrics.scalars(values)}
    folder = run.folder / "evaluations"
    folder.mkdir(exist_ok=True)
    text = json.dumps(record.finite(found), indent=2) + "\n"
    record.write_text(folder / f"{split}-{step}.json", text)
    for name, value in values.items():
        if value.ndim == 2:
            path = folder / f"{split}-{step}-{name}.png"
            plots.matrix(value, f"{split} {name}, step {step}", path)
            say(f"{name} matrix: {path}")
    return found


def restored(run: Run, checkpoint: str) -> tuple[Dataset, Any]:
    """A run's data, and its state at the checkpoint that `best`, `newest` or a number means.

    Raises:
      UserError: there is no such checkpoint, or the data are others.
    """
    data, _, saved = _restored(run, checkpoint)
    return data, saved.state


def generate(run: Run, checkpoint: str, prompt: str, options: Options) -> str:
    """What a run's language model writes after a prompt, prompt included.

    Raises:
      UserError: the run is none of a language model, or the prompt is not of its characters.
    """
    if not hasattr(run.experiment, "network"):
        name = configs.experiment_name(run.config)
        raise UserError(
            f"{run.folder} is a run of {name}, which makes no text: name a run of a language model"
        )
    data, _, saved = _restored(run, checkpoint)
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
    kept = Checkpoints(run.folder / "nonfinite")
    if not kept.steps():
        raise UserError(f"{run.folder} kept no step that was not finite: there is none to replay")
    step = kept.steps()[-1]
    data, task, shapes = _rebuild(run)
    few = {name: array[: run.config.batch_size] for name, array in data.train.items()}
    batch = next(batches.padded_batches(few, run.config.batch_size))
    mesh = parallel.mesh(run.config)
    like = shapes, parallel.put(batch, parallel.sharded(mesh))
    saved = kept.restore(step, like)
    _check_data(run, data, saved)
    state, batch = saved.state
    _, found = jax.jit(task.step)(state, batch)
    place = finite.origin(lambda *given: task.step(*given)[1], state, batch)
    return {
        "step": step,
        "from": place or "nowhere: run op by op, all of it is finite",
        **metrics.scalars(metrics.divide(found)),
        **{f"batch {k}": f"{v.min():.6g} to {v.max():.6g}" for k, v in batch.items()},
    }
