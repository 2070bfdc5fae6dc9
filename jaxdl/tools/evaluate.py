"""The verb `evaluate`: metrics of a checkpoint on one split of a data set."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import files, metrics
from jaxdl.console import say
from jaxdl.data.batches import Dataset
from jaxdl.data.spec import DataSpec
from jaxdl.distributed import sharding
from jaxdl.errors import UserError, first_line
from jaxdl.run import metrics_log, plots, workdir
from jaxdl.run.checkpoint_record import Saved
from jaxdl.run.restore import Run, load_data, restore
from jaxdl.train.evaluate import evaluate_split
from jaxdl.train.step_spec import operands, step_spec


def _check_data(run: Run, data: Dataset, known: DataSpec, saved: Saved) -> bool:
    """Holds data against those that a run was trained on; returns whether they are the same.

    Args:
      run: an opened run.
      data: what is to be evaluated.
      known: the description of the run's own data.
      saved: its checkpoint.

    Raises:
      UserError: they are other bytes and nobody has named them; or other shapes or classes.
    """
    here = data.spec
    if saved.record["identity"].get(workdir.DATA) == here.fingerprint:
        return True
    if not run.given:
        raise UserError(
            f"{run.folder} was trained on other bytes of {here.name} than those in {here.source}, "
            "or by an older version that split them otherwise: bring them back, or name what is to "
            "be evaluated with --data_dir or --dataset"
        )
    for what, mine, its in (
        ("examples", known.elements, here.elements),
        ("classes", (known.num_classes, known.classes), (here.num_classes, here.classes)),
        ("tokens", known.vocabulary, here.vocabulary),
    ):
        if mine != its:
            raise UserError(
                f"{here.source} has other {what} than {run.folder} was trained on: give data of "
                "the same shapes, classes and tokens"
            )
    say(f"these are not the bytes of {known.name} that {run.folder} was trained on")
    return False


def evaluate(run: Run, split: str) -> dict[str, Any]:
    """Evaluates a run's checkpoint; on its own data with the figures that the run itself gives.

    Writes `evaluations/SPLIT-STEP.json` into the run folder, and pictures of what is a matrix;
    where it cannot, a line says so. Of other data the name has the start of their fingerprint.

    Args:
      run: an opened run.
      split: of its data, or of others of the same shapes and classes that the user has named.

    Returns:
      The values that are single numbers, `step` and `split`.
    """
    _, saved, known = restore(run)
    data = load_data(run)
    own = _check_data(run, data, known, saved)
    step = saved.step
    say(f"{split} split of {data.spec.name} ({data.spec.source}), checkpoint of step {step}")
    mesh = sharding.mesh(run.config)
    # As the run compiled it: its numbers are arguments.
    described = dataclasses.replace(data, spec=known)
    program = step_spec(run.experiment.build, run.config, described, mesh)
    numbers = operands(run.config, mesh)
    values = evaluate_split(program, numbers, saved.state, getattr(data, split))
    found = {"step": step, "split": split, **metrics.scalars(values)}
    name = f"{split}-{step}" if own else f"{split}-{step}-{data.spec.fingerprint[:8]}"
    folder = run.folder / "evaluations"
    try:
        _keep_evaluation(folder, name, found, values, known.classes)
    except OSError as error:
        say(f"{folder} cannot be written ({error.strerror}): these figures are not kept")
    except Exception as error:  # of a library that draws: the figures are there
        say(f"no picture in {folder}: {first_line(error)}")
    return found


def _keep_evaluation(
    folder: Path,
    name: str,
    found: dict[str, Any],
    values: dict[str, np.ndarray],
    classes: Sequence[str],
) -> None:
    folder.mkdir(exist_ok=True)
    text = json.dumps(metrics_log.finite(found), indent=2) + "\n"
    files.write_text(folder / f"{name}.json", text)
    for metric, value in values.items():
        if value.ndim == 2:
            path = folder / f"{name}-{metric}.png"
            plots.matrix(value, f"{found['split']} {metric}, step {found['step']}", path, classes)
            say(f"{metric} matrix: {path}")
