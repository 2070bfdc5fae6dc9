"""The `evaluate` command: metrics of a checkpoint on one split of a data set."""

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
from jaxdl.run.restore import load_data, restore
from jaxdl.run.run_folder import Run
from jaxdl.train.evaluate import evaluate_split
from jaxdl.train.step_spec import device_operands, step_spec


def check_data(run: Run, data: Dataset, spec: DataSpec, saved: Saved) -> bool:
    """Compares data with those that a run was trained on.

    Args:
      run: an opened run.
      data: the data to evaluate.
      spec: data spec of the run's own data.
      saved: the run's checkpoint.

    Returns:
      True if the data are the run's own, byte by byte.

    Raises:
      UserError: the bytes differ and the user did not choose other data, or shapes or classes
        differ.
    """
    here = data.spec
    if saved.record["identity"].get(workdir.DATA) == here.fingerprint:
        return True
    if not run.overridden:
        where = f"those in {here.source}" if here.source else "its `load` gives now"
        raise UserError(
            f"{run.folder} was trained on other bytes of {here.name} than {where}, or by an older "
            "version with other splits: restore the data, or choose the data to evaluate by "
            "--data_dir or --dataset"
        )
    for part, trained, evaluated in (
        ("examples", spec.elements, here.elements),
        ("classes", (spec.num_classes, spec.classes), (here.num_classes, here.classes)),
        ("tokens", spec.vocabulary, here.vocabulary),
        ("columns", (spec.columns, spec.categories), (here.columns, here.categories)),
    ):
        if trained != evaluated:
            raise UserError(
                f"{here.source} has other {part} than {run.folder} was trained on: give data of "
                "the same shapes, classes, tokens and columns"
            )
    say(f"these are not the bytes of {spec.name} that {run.folder} was trained on")
    return False


def evaluate(run: Run, split: str) -> dict[str, Any]:
    """Evaluates a checkpoint of a run on one split.

    On the run's own data the metrics equal those of the run itself. Writes
    `evaluations/SPLIT-STEP.json` into the run folder, and a picture of each metric that is a
    matrix. For other data the file name ends with the start of their fingerprint. If the folder
    cannot be written, prints a line and goes on.

    Args:
      run: an opened run.
      split: train, validation or test.

    Returns:
      The scalar metrics, `step` and `split`.

    Raises:
      UserError: the data do not fit the run.
    """
    _, saved, spec = restore(run)
    data = load_data(run)
    is_own = check_data(run, data, spec, saved)
    step = saved.step
    source = f" ({data.spec.source})" if data.spec.source else ""
    say(f"{split} split of {data.spec.name}{source}, checkpoint of step {step}")
    mesh = sharding.mesh(run.config)
    # The program that the run compiled, with its hyperparameters as arguments.
    program = step_spec(
        run.experiment.build, run.config, dataclasses.replace(data, spec=spec), mesh
    )
    hyperparameters = device_operands(run.config, spec, mesh)
    values = evaluate_split(program, hyperparameters, saved.state, getattr(data, split))
    record = {"step": step, "split": split, **metrics.scalars(values)}
    name = f"{split}-{step}" if is_own else f"{split}-{step}-{data.spec.fingerprint[:8]}"
    folder = run.folder / "evaluations"
    try:
        _write_evaluation(folder, name, record, values, spec.classes)
    except OSError as error:
        say(f"{folder} cannot be written ({error.strerror}): these metrics are not saved")
    except Exception as error:  # an error of Matplotlib does not invalidate the metrics
        say(f"no picture in {folder}: {first_line(error)}")
    return record


def _write_evaluation(
    folder: Path,
    name: str,
    record: dict[str, Any],
    values: dict[str, np.ndarray],
    classes: Sequence[str],
) -> None:
    """Writes metrics as JSON, and matrices as PNG."""
    folder.mkdir(exist_ok=True)
    text = json.dumps(metrics_log.finite(record), indent=2) + "\n"
    files.write_text(folder / f"{name}.json", text)
    for metric, value in values.items():
        if value.ndim == 2:
            path = folder / f"{name}-{metric}.png"
            title = f"{record['split']} {metric}, step {record['step']}"
            plots.confusion_matrix(value, title, path, classes)
            say(f"{metric} matrix: {path}")
