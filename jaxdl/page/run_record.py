"""One run as a page shows it, read from its folder, which may be a stranger's or change meanwhile.

Texts are made printable and short, numbers are finite. What cannot be read is a note of the run.
"""

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jaxdl import files, saved_config
from jaxdl.data import spec
from jaxdl.errors import UserError, first_line, printable, shortened
from jaxdl.page import curve_points
from jaxdl.page.curve_points import Points
from jaxdl.page.discovery import Place
from jaxdl.run import environment, logger, metrics_log, run_state, workdir
from jaxdl.run.finished import SUMMARY
from jaxdl.run.run_folder import CHECKPOINTS, NONFINITE
from jaxdl.sweep.ledger import last_words
from jaxdl.tools.records import RUNTIME_FIELDS

LARGEST_LOG = 1 << 28  # bytes of a log whose curves are drawn
MOST_FIELDS = 500  # of a config
NAME, VALUE = 80, 300  # longest name and value, in characters
LARGEST_NUMBER = 2.0**53  # up to which JavaScript has every whole number
EXPERIMENT = re.compile(r"experiments(\.[A-Za-z_]\w{0,99}){1,9}", re.ASCII)

Value = TypeVar("Value")
Kept = dict[tuple[str, Path], tuple[Any, Any]]  # what was read of a file, with its signature


class Run(NamedTuple):
    """A run.

    Attributes:
      place: where it is.
      state: done, running, paused, waiting, failed, killed or unreadable.
      notes: remarks on what could not be read, or differs from what the run wrote.
      config: fields of the config.
      summary: content of its summary; of its log's last lines before there is one.
      curves: curves by name.
      facts: versions, hardware, settings and commit.
      data: name and fingerprint of the data set.
      digests: digests by name.
    """

    place: Place
    state: str
    notes: tuple[str, ...] = ()
    config: Mapping[str, Any] = {}
    summary: Mapping[str, Any] = {}
    curves: Mapping[str, Points] = {}
    facts: Mapping[str, str] = {}
    data: tuple[str, str] = ("", "")
    digests: Mapping[str, str] = {}


def read(place: Place, kept: Kept) -> Run:
    """Reads a run; its files are read again only if they have changed.

    Args:
      place: where it is.
      kept: what earlier calls have read, which this call adds to.
    """
    folder = place.folder
    if place.problem:
        return Run(place, run_state.UNREADABLE, (place.problem,), place.trial.get("config", {}))
    notes: list[str] = []
    try:
        if not folder.is_dir():
            state = run_state.state_of(folder, place.trial)
            return Run(place, state, _end(place, state), place.trial.get("config", {}))
        workdir.check_no_links(folder, depth=1)
        config, notice = _config(place, kept)
        notes += [notice] if notice else []
        summary, remarks = kept_content(kept, folder / SUMMARY, _summary) or ({}, [])
        notes += remarks
        about = kept_content(kept, folder / "environment.json", files.read_json) or {}
        data = kept_content(kept, folder / spec.NAME, files.read_json) or {}
        log = folder / "metrics.jsonl"
        is_large = (_signature(log) or (0, 0))[1] > LARGEST_LOG
        known = None if is_large else kept_content(kept, log, _curves)
        curves, problem = known or ({}, "" if is_large else "is missing")
    except (UserError, OSError) as error:  # damaged, or deleted meanwhile
        return Run(place, run_state.UNREADABLE, (first_line(error),), place.trial.get("config", {}))
    if is_large:
        notes.append(f"its log has more than {LARGEST_LOG >> 20} MiB: no curves")
    state = run_state.state_of(folder, place.trial)
    if problem and state == "done":  # of another run a kill may have torn the last line
        notes.append(f"its log, {log.name}, {problem}")
    notes += _end(place, state)
    digests = {
        "state": summary.get("state_sha256"),
        "summary": summary.get("sha256"),
        "data": data.get("fingerprint"),
    }
    return Run(
        place,
        state,
        tuple(notes),
        config,
        summary or _latest(curves),
        curves,
        environment.facts(about),
        (text_of(data.get("name", "")), text_of(data.get("fingerprint", ""))),
        {name: text_of(value) for name, value in digests.items() if value},
    )


def _config(place: Place, kept: Kept) -> tuple[dict[str, Any], str]:
    """Config of a run, and a notice if config.json differs from its checkpoints.

    A trial that has begun but not written its config yet has that of the ledger.
    """
    folder = place.folder
    signature = _signature(folder / workdir.CONFIG), _signature(folder / CHECKPOINTS)
    if signature == (None, None) and place.trial:
        return place.trial["config"], ""
    known = kept.get(("config", folder))
    if known is None or known[0] != signature:
        checkpointed = workdir.config_in_checkpoints(folder)
        known = signature, workdir.read_config(folder, checkpointed, RUNTIME_FIELDS)
        kept["config", folder] = known
    return known[1]


def kept_content(kept: Kept, path: Path, read: Callable[[Path], Value]) -> Value | None:
    """Content of a file, read only if its size or time has changed; None if there is no file.

    Args:
      kept: what was read before.
      path: the file.
      read: function that reads it.
    """
    signature = _signature(path)
    if signature is None:
        return None
    known = kept.get(("file", path))
    if known is None or known[0] != signature:
        known = signature, read(path)
        kept["file", path] = known
    content: Value = known[1]
    return content


def _signature(path: Path) -> tuple[int, ...] | None:
    """Identity, size and time of a file; None if there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _summary(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Summary of a run, with its digest, and remarks on it."""
    remarks: list[str] = []
    values = logger.read_summary(path.parent, remarks.append)
    if values != metrics_log.finite(values):
        remarks.append(f"{path.name} has numbers that are not finite, which a run does not write")
    return values | {"sha256": files.read_json(path).get("sha256")}, remarks


def _curves(path: Path) -> tuple[dict[str, Points], str]:
    """Curves of a run's log, and the reason why they are not all."""
    lines, problem = logger.read_log(path.parent)
    return curve_points.from_lines(lines), problem


def _latest(curves: Mapping[str, Points]) -> dict[str, Any]:
    """Last values of a log, named as in a summary."""
    if not curves:
        return {}
    values = {name: float(points.values[-1]) for name, points in curves.items()}
    return values | {"step": max(int(points.steps[-1]) for points in curves.values())}


def _end(place: Place, state: str) -> tuple[str, ...]:
    """Remarks on the end of a run that is not done, as far as its files tell it."""
    if state not in ("failed", "killed"):
        return ()
    nonfinite = ("its metrics were not finite",) if (place.folder / NONFINITE).is_dir() else ()
    if place.trial.get("state") != "failed":
        return nonfinite
    status = place.trial.get("status")
    code = f" with status {status}" if type(status) is int else ""
    return *nonfinite, f"its process ended{code}: {last_words(place.trial)}"


def command(config: Mapping[str, Any]) -> str:
    """Command that makes a run again in a new folder; empty if there is none that is safe to copy.

    Args:
      config: the run's config. A value may be a stranger's, so that one with characters that are
        not printable, which a terminal may obey, gives no command.
    """
    experiment = config.get("experiment")
    if not isinstance(experiment, str) or not EXPERIMENT.fullmatch(experiment):
        return ""
    words = ["python", "-m", experiment]
    for name, value in list(config.items())[:MOST_FIELDS]:
        if name not in ("experiment", *saved_config.OF_ONE_START):
            words.append(f"--{name}={saved_config.flag_text(value)}")
    text = " ".join(map(shlex.quote, words))
    return text if text.isprintable() and len(text) <= 20_000 else ""


def scalar(value: Any) -> str | float | bool:
    """Value of a config or summary as JSON: a finite number, a truth value or a short text."""
    if isinstance(value, bool):
        return value
    if metrics_log.is_result(value) and abs(value) <= LARGEST_NUMBER:
        return float(value) if isinstance(value, float) else int(value)
    return text_of(value)


def text_of(value: Any, most: int = VALUE) -> str:
    """Short printable text of a value."""
    return printable(shortened(value, most))


def fields(values: Mapping[str, Any]) -> dict[str, str | float | bool]:
    """Entries of a config or a summary with short printable names and values."""
    return {
        text_of(name, NAME): scalar(value) for name, value in list(values.items())[:MOST_FIELDS]
    }
