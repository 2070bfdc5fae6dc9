"""Logger: writes and reads the config, environment, metrics and summary in a run folder.

`metrics.jsonl` is the authoritative log. Trackers, such as TensorBoard, are given it again at each
start. `metrics_log` has the format of its lines.

`config.json` is a plain file: a bit may flip or somebody may edit it, and nothing would show. A
checkpoint holds the same config under SHA-256. So once there is a checkpoint, its config counts.
The file then decides only what changes no bit of a result, such as --data_dir, or the place of a
folder of images, whose bytes have a fingerprint. `workdir.read_config` applies this rule.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxdl import files, saved_config
from jaxdl.config import RunConfig, experiment_name
from jaxdl.console import say
from jaxdl.data import spec
from jaxdl.data.spec import DataSpec
from jaxdl.distributed import collectives
from jaxdl.errors import UserError, writing
from jaxdl.run import environment, metrics_log
from jaxdl.trackers.group import open_trackers
from jaxdl.trackers.tracker import Histogram


class RunLog:
    """Writer of a run folder's config, environment, log and summary.

    Attributes:
      folder: the run folder.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        data: DataSpec,
        lines: list[dict[str, Any]],
        more: dict[str, Any] | None = None,
        seconds: float | None = None,
    ):
        """Writes the config and the environment, and opens the log.

        Args:
          folder: the run folder.
          config: the run's config.
          data: description of the data.
          lines: lines of the log so far, after which it continues.
          more: further entries of the environment.
          seconds: seconds of all starts of the run so far; None: those of the last line.
        """
        self.folder = folder
        files.clear_parts(folder)
        files.write_text(
            folder / "config.json", json.dumps(saved_config.to_dict(config), indent=2) + "\n"
        )
        files.write_text(folder / "flags.txt", saved_config.to_flags(config))
        files.write_text(folder / spec.NAME, data.to_json())
        if data.tokenizer:
            files.write_text(folder / spec.TOKENIZER, data.tokenizer_json())
        fields = ("name", "version", "fingerprint", "source", "classes")
        dataset = {name: getattr(data, name) for name in fields}
        about = environment.describe(config) | {"dataset": dataset} | (more or {})
        self._seat, self._about = config.seat, about
        self._write_environment()
        if seconds is None:
            seconds = max((line.get("seconds") or 0.0 for line in lines), default=0.0)
        self._trackers = open_trackers(
            # Of several processes the first one writes; the folders of the others are temporary.
            config.trackers if collectives.is_host0() else "",
            folder,
            experiment_name(config),
            saved_config.identity(config),
            seconds,
        )
        self._open(lines)

    def go_back(self, lines: list[dict[str, Any]]) -> None:
        """Replaces the log by `lines`."""
        self._close()
        self._open(lines)

    def log(self, line: dict[str, Any]) -> None:
        """Appends a line to the log, and gives it to the trackers.

        Args:
          line: `step`, `epoch`, `split`, metrics and `seconds`. A number that is not finite is
            written as null, because JSON lacks it.
        """
        line = metrics_log.finite(line)
        self._lines.append(line)
        with writing(self.folder / "metrics.jsonl"):
            self._log.write(metrics_log.to_text([line]))
            self._log.flush()  # visible at once to whoever follows the file
        self._trackers.log(line)

    def lines(self) -> list[dict[str, Any]]:
        """Returns the lines of the log so far."""
        return self._lines.copy()

    def text(self) -> str:
        """Returns the text of the log so far, which a checkpoint holds."""
        return metrics_log.to_text(self._lines)

    def sync(self) -> None:
        """Syncs the log to disk, and TensorBoard's events."""
        with writing(self.folder / "metrics.jsonl"):
            os.fsync(self._log.fileno())
        self._trackers.flush()

    def picture(self, path: Path, step: int, name: str = "") -> None:
        """Gives a PNG to the trackers.

        Args:
          path: path of the PNG.
          step: step of the picture.
          name: name of the figure; default: the file's name.
        """
        self._trackers.figure(name or path.stem, path, step)

    def histograms(self, histograms: dict[str, Histogram], step: int) -> None:
        """Gives histograms by name to the trackers."""
        self._trackers.histograms(histograms, step)

    def summarize(self, values: dict[str, Any]) -> None:
        """Writes `summary.json` with its own SHA-256, so that published results can be verified."""
        if self._seat:
            self._write_environment()  # a population may have chosen its map since
        values = metrics_log.finite(values)
        text = json.dumps(values | {"sha256": _digest(values)}, indent=2) + "\n"
        files.write_text(self.folder / "summary.json", text)
        self._trackers.end(values)

    def _write_environment(self) -> None:
        """Writes `environment.json`, with the population that the run is a member of, if any."""
        population = {"population": self._seat.describe()} if self._seat else {}
        text = json.dumps(self._about | population, indent=2) + "\n"
        files.write_text(self.folder / "environment.json", text)

    def close(self) -> None:
        """Closes the log and ends the trackers."""
        self._trackers.end(None)  # nothing if the summary has ended them
        self._close()

    def _close(self) -> None:
        """Closes the log; errors are ignored, because only `sync` promises data on disk."""
        with contextlib.suppress(OSError):
            self._log.close()

    def _open(self, lines: list[dict[str, Any]]) -> None:
        """Writes `lines` to the log, opens it for more, and gives them to the trackers."""
        self._lines = lines.copy()
        files.write_text(self.folder / "metrics.jsonl", self.text())
        self._log = (self.folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._trackers.start(lines)


def read_summary(folder: Path, warn: Callable[[str], None] = say) -> dict[str, Any]:
    """Reads the summary of a finished run.

    A summary without a SHA-256 is reported: version 0.1.0 wrote none.

    Args:
      folder: the run folder.
      warn: called with a line about a summary without a SHA-256.

    Raises:
      UserError: `summary.json` is missing, or is not what the run wrote.
    """
    path = folder / "summary.json"
    values = files.read_json(path)
    sha256 = values.pop("sha256", None)
    if sha256 is None:
        warn(
            f"{path} has no SHA-256 of itself: it is of version 0.1.0, or not what the run wrote "
            f"(its command, with --workdir={folder}, writes it again)"
        )
    elif sha256 != _digest(values):
        raise UserError(
            f"{path} is not what the run wrote (its SHA-256 is another): the command of the run, "
            f"with --workdir={folder}, writes it again"
        )
    return values


def lines_before(step: int, log: str) -> list[dict[str, Any]]:
    """Returns the lines of a checkpoint's log from before its step.

    The events of the checkpoint's own step are logged again by the run that continues from it, with
    the same values. The line of the final test belongs to the end of a run, so it is dropped too.

    Args:
      step: step of the checkpoint.
      log: text of the log in the checkpoint.

    Raises:
      UserError: the text is not a valid log. Its SHA-256 is right, so a run did not write it.
    """
    lines, is_valid = metrics_log.parse(log)
    if not is_valid:
        raise UserError(
            f"the log in the checkpoint of step {step} is not a valid log: give another --workdir"
        )
    return [line for line in lines if line["step"] < step and line["split"] != "test"]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Reads the lines of `metrics.jsonl` up to the first invalid one.

    A kill may tear the last line. A log that cannot be read, or is not a regular file, yields no
    lines. If the run is finished, an incomplete log is reported on stderr.

    Args:
      folder: the run folder.
    """
    lines, problem = read_log(folder)
    if problem and (folder / "summary.json").exists():
        path = folder / "metrics.jsonl"
        say(f"{path} {problem}: its command, with --workdir={folder}, writes it again")
    return lines


def read_log(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Reads the lines of `metrics.jsonl` up to the first invalid one.

    Args:
      folder: the run folder.

    Returns:
      The lines, and the reason why they are not all; empty if they are.
    """
    path = folder / "metrics.jsonl"
    try:
        content = files.read_bytes(path, files.LARGEST_LOG)
    except OSError as error:
        return [], f"cannot be read ({error.strerror})"
    lines, is_valid = metrics_log.parse(content.decode(errors="replace"))
    return lines, "" if is_valid else f"is not what the run wrote after its line {len(lines)}"


def _digest(values: dict[str, Any]) -> str:
    """Returns the SHA-256 of a summary's values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
