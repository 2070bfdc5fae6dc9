"""The `analyze` command: measures and pictures of a trained model, in parts."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxdl import files
from jaxdl.console import number, say, show
from jaxdl.errors import UserError, first_line
from jaxdl.export import temperature
from jaxdl.export.model import TrainedModel
from jaxdl.run.restore import load_data, restore
from jaxdl.run.run_folder import Run
from jaxdl.tools import analyze_attribution as attribution
from jaxdl.tools import analyze_features as features
from jaxdl.tools import analyze_landscape as landscape
from jaxdl.tools import analyze_robustness as robustness
from jaxdl.tools import analyze_uncertainty as uncertainty
from jaxdl.tools.analysis_subject import Options, Result, Subject
from jaxdl.tools.evaluate import check_data

# Each part: its function, and a line about it.
PARTS: dict[str, tuple[Callable[[Subject], Result], str]] = {
    "calibration": (uncertainty.calibration, "reliability, and temperature scaling"),
    "conformal": (uncertainty.conformal_sets, "sets of classes and intervals that cover"),
    "dropout": (uncertainty.dropout, "Monte Carlo dropout"),
    "unknown": (uncertainty.unknown, "scores of examples unlike the data"),
    "attribution": (attribution.attribution, "the entries of an input that decide"),
    "attacks": (robustness.attacks, "accuracy under adversarial attacks"),
    "corruptions": (robustness.corruptions, "accuracy on corrupted images"),
    "curvature": (landscape.curvature, "Hessian and landscape of the training loss"),
    "features": (features.features, "similarity, probes and silent units of the layers"),
    "errors": (features.errors, "confused classes and the worst errors"),
}


def analyze(run: Run, parts: Sequence[str], options: Options) -> list[tuple[str, str, Any]]:
    """Analyses the checkpoint of a run, writes `analysis/` in its folder and prints a table.

    Each part writes PART.json and its pictures when it is done, each atomically. So after an
    interruption the command is given again.

    Args:
      run: an opened run.
      parts: names of the parts; if empty all that fit the task, and a line tells the others.
      options: options of the parts.

    Returns:
      Rows of the table: part, measure and value.

    Raises:
      UserError: a part is unknown, a named part does not fit the task, the data are not the run's,
        or the folder cannot be written.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise UserError(f"no part {unknown[0]!r}: give one or more of {', '.join(PARTS)}")
    if options.examples < 1:
        raise UserError(f"--examples={options.examples}: give at least 1")
    files.check_no_links(run.folder, [temperature.FOLDER])
    subject = open_subject(run, options)
    rows: list[tuple[str, str, Any]] = []
    for part in dict.fromkeys(parts or PARTS):
        say(f"{part}: {PARTS[part][1]}")
        try:
            result = PARTS[part][0](subject)
        except UserError as error:
            if parts:
                raise UserError(f"{part}: {error}") from error
            say(f"{part} is left out: {error}")
            continue
        _write(subject, part, result)
        rows += [(part, name, value) for name, value in result.rows]
    if not rows:
        raise UserError(f"{run.folder}: no part fits this task, see the lines above")
    cells = [(a, b, number(c) if isinstance(c, float) else c) for a, b, c in rows]
    show(("part", "measure", "value"), cells, left=2)
    return rows


def open_subject(run: Run, options: Options) -> Subject:
    """Restores the model of a run and loads its data.

    Args:
      run: an opened run.
      options: options of the analysis.

    Raises:
      UserError: the data are not those of the run.
    """
    task, saved, spec = restore(run)
    data = load_data(run)
    check_data(run, data, spec, saved)
    say(f"{data.spec.name}, checkpoint of step {saved.step}")
    model = TrainedModel(run, task, saved.state, spec, saved.step)
    return Subject(model, data, saved.record["state_sha256"], options)


def _write(subject: Subject, part: str, result: Result) -> None:
    """Writes the JSON file and the pictures of a part, and a temperature for `--calibrated`.

    Raises:
      UserError: the folder cannot be written.
    """
    folder = subject.folder / temperature.FOLDER
    record = {"step": subject.model.step, **result.values}
    try:
        folder.mkdir(exist_ok=True)
        for name, draw in result.pictures.items():
            path = folder / f"{part}-{name}.png"
            try:
                draw(path)
            except OSError:
                raise
            except Exception as error:  # an error of Matplotlib does not invalidate the measures
                say(f"no picture {path}: {first_line(error)}")
        if result.temperature is not None:
            temperature.write(
                subject.folder, result.temperature, subject.model.step, subject.digest
            )
        text = json.dumps(_plain(record), indent=2) + "\n"
        files.write_text(folder / f"{part}.json", text)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}): make it writable, or copy the run"
        ) from error


def _plain(value: Any) -> Any:
    """Value of JSON; numbers that are not finite become None, as JSON lacks them."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
