"""The `analyze` command: measures and pictures of a trained model, in parts."""

import contextlib
import errno
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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

LEFTOVER = 3600  # seconds, after which a temporary file is not of a process that writes it


class Part(NamedTuple):
    """Part of the analysis.

    Attributes:
      function: measures a subject.
      need: check that it fits a subject, which takes no time.
      text: line about it.
    """

    function: Callable[[Subject], Result]
    need: Callable[[Subject], None]
    text: str


PARTS = {
    "calibration": Part(
        uncertainty.calibration,
        lambda s: s.need("logits", "labels"),
        "reliability, and temperature scaling",
    ),
    "conformal": Part(
        uncertainty.conformal_sets,
        lambda s: s.need("logits", "numbers"),
        "sets of classes and intervals that cover",
    ),
    "dropout": Part(uncertainty.dropout, Subject.need_classes, "Monte Carlo dropout"),
    "unknown": Part(
        uncertainty.unknown, Subject.need_classes, "scores of examples unlike the data"
    ),
    "attribution": Part(
        attribution.attribution,
        lambda s: s.need("logits", "labels", "numbers"),
        "the entries of an input that decide",
    ),
    "attacks": Part(robustness.attacks, Subject.need_images, "accuracy under adversarial attacks"),
    "corruptions": Part(
        robustness.corruptions, Subject.need_images, "accuracy on corrupted images"
    ),
    "curvature": Part(
        landscape.curvature, landscape.need_loss, "Hessian and landscape of the training loss"
    ),
    "features": Part(
        features.features,
        Subject.need_layers,
        "similarity, probes and silent units of the layers",
    ),
    "errors": Part(features.errors, Subject.need_classes, "confused classes and the worst errors"),
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
    _check_writable(run.folder)
    subject = open_subject(run, options)
    rows: list[tuple[str, str, Any]] = []
    try:
        for part in dict.fromkeys(parts or PARTS):
            result = _result(subject, part, named=bool(parts))
            if result is not None:
                _write(subject, part, result)
                rows += [(part, name, value) for name, value in result.rows]
    finally:  # what is done is also shown before an error
        if rows:
            cells = [(a, b, number(c) if isinstance(c, float) else c) for a, b, c in rows]
            show(("part", "measure", "value"), cells, left=2)
    if not rows:
        raise UserError(f"{run.folder}: no part fits this task, see the lines above")
    return rows


def _result(subject: Subject, part: str, named: bool) -> Result | None:
    """Result of a part; None, with a line, if it does not fit the model and was not named.

    Raises:
      UserError: a named part does not fit.
    """
    function, need, text = PARTS[part]
    try:
        need(subject)
        say(f"{part}: {text}")
        return function(subject)
    except UserError as error:
        if named:
            raise UserError(f"{part}: {error}") from error
        say(f"{part} is left out: {error}")
        return None


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
    with _writing(folder):
        folder.mkdir(exist_ok=True)
        files.clear_parts(folder, LEFTOVER)
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


def _check_writable(folder: Path) -> None:
    """Checks before a long computation that its results can be written; leaves no file.

    Raises:
      UserError: they cannot.
    """
    target = folder / temperature.FOLDER
    with _writing(target):
        place = target if os.path.lexists(target) else folder
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(4096))


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turns an error of writing into a `UserError` with its way out."""
    try:
        yield
    except OSError as error:
        way = "make it writable, or copy the run"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            way = "free space on the disk, and repeat the command"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            way = "it is a file, delete or rename it"
        raise UserError(f"{folder} cannot be written ({error.strerror}): {way}") from error


def _plain(value: Any) -> Any:
    """Value of JSON; numbers that are not finite become None, as JSON lacks them."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
