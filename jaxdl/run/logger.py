"""The run folder: config, environment, metrics, summary. `metrics.jsonl` is the one true log.

`config.json` is a plain file: a bit of it may flip, a hand may change it, and nothing would show. A
checkpoint holds the same config under SHA-256. So with a checkpoint its config is the one that
counts, and the file decides only what changes no bit of a result, such as --data_dir, or the place
of a folder of images, whose bytes have a fingerprint.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from jaxdl import files, saved_config
from jaxdl.config import RunConfig
from jaxdl.console import say
from jaxdl.data import spec
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError, writing
from jaxdl.run import environment, metrics_log

FLUSH_EVERY = 10.0  # seconds until TensorBoard sees a new line


class Record:
    """Writes one run's folder, going on after the lines that its log has so far."""

    def __init__(
        self, folder: Path, config: RunConfig, data: DataSpec, lines: list[dict[str, Any]]
    ):
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
        about = environment.describe() | {"dataset": {n: getattr(data, n) for n in fields}}
        files.write_text(folder / "environment.json", json.dumps(about, indent=2) + "\n")
        self._open(lines)

    def go_back(self, lines: list[dict[str, Any]]) -> None:
        """Makes `lines` all that the log has."""
        self.close()
        self._open(lines)

    def log(self, line: dict[str, Any]) -> None:
        """Appends a line with `step`, `epoch`, `split`, metrics and `seconds`.

        A number that is not finite is written as null, for JSON has none.
        """
        line = metrics_log.finite(line)
        self._lines.append(line)
        with writing(self.folder / "metrics.jsonl"):
            self._log.write(metrics_log.to_text([line]))
            self._log.flush()  # who follows the file sees the line now
        self._to_tensorboard(line)

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return self._lines.copy()

    def text(self) -> str:
        """The log so far, for a checkpoint to hold."""
        return metrics_log.to_text(self._lines)

    def sync(self) -> None:
        """Brings all that was written to the disk."""
        with writing(self.folder / "metrics.jsonl"):
            os.fsync(self._log.fileno())
        with writing(self.folder / "tensorboard"):
            self._tensorboard.flush()

    def picture(self, path: Path, step: int, name: str = "") -> None:
        """Shows a PNG in TensorBoard too, by a name; by the file's, if there is none."""
        import numpy as np
        from PIL import Image
        from tensorboardX import summary

        with files.open_regular(path) as file, Image.open(file, formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._show(summary.image(name or path.stem, pixels, dataformats="HWC"), step)

    def summarize(self, values: dict[str, Any]) -> None:
        """Writes `summary.json`, with a SHA-256 of itself: what is published must be what was."""
        values = metrics_log.finite(values)
        text = json.dumps(values | {"sha256": _digest(values)}, indent=2) + "\n"
        files.write_text(self.folder / "summary.json", text)

    def close(self) -> None:
        """Closes all files; what a full disk does not take was not promised to anybody."""
        for file in (self._log, self._tensorboard):
            with contextlib.suppress(OSError):
                file.close()

    def _open(self, lines: list[dict[str, Any]]) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        self._lines = lines.copy()
        files.write_text(self.folder / "metrics.jsonl", self.text())
        self._log = (self.folder / "metrics.jsonl").open("a", encoding="utf-8")
        # Written anew from the log, so that it shows no step twice.
        events = self.folder / "tensorboard"
        shutil.rmtree(events, ignore_errors=True)
        events.mkdir()
        # The writer beneath SummaryWriter: that one's thread would die on a full disk, and wait.
        self._tensorboard = EventsWriter(str(events / "events"))
        self._flushed = time.monotonic()
        last = max((line.get("seconds") or 0.0 for line in lines), default=0.0)
        for line in lines:  # as far apart as they were
            self._to_tensorboard(line, time.time() - last + (line.get("seconds") or last))

    def _to_tensorboard(self, line: dict[str, Any], when: float | None = None) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=f"{line['split']}/{name}", simple_value=value)
            for name, value in line.items()
            if name not in ("step", "split") and value is not None
        ]
        self._show(Summary(value=values), line["step"], when)

    def _show(self, values: Any, step: int, when: float | None = None) -> None:
        from tensorboardX.proto.event_pb2 import Event

        with writing(self.folder / "tensorboard"):
            event = Event(summary=values, step=step, wall_time=when or time.time())
            self._tensorboard.write_event(event)
            if time.monotonic() - self._flushed > FLUSH_EVERY:
                self._tensorboard.flush()
                self._flushed = time.monotonic()


def read_summary(folder: Path) -> dict[str, Any]:
    """The figures of a finished run.

    Figures without a SHA-256, which those of version 0.1.0 lack, are named on stderr.

    Raises:
      UserError: `summary.json` is missing or not what the run wrote.
    """
    path = folder / "summary.json"
    values = files.read_json(path)
    sha256 = values.pop("sha256", None)
    if sha256 is None:
        say(
            f"{path} has no SHA-256 of itself: it is of version 0.1.0, or not what the run wrote "
            f"(its command, with --workdir={folder}, writes it again)"
        )
    elif sha256 != _digest(values):
        raise UserError(
            f"{path} is not what the run wrote (its SHA-256 is another): the command of the run, "
            f"with --workdir={folder}, writes it again"
        )
    return values


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def before(step: int, log: str) -> list[dict[str, Any]]:
    """The lines of a checkpoint's log that stand: those of earlier steps, which are final.

    What was logged at the checkpoint's own step is logged again by the run that goes on from it,
    with the same values; and the line of the final test belongs to the end alone.

    Raises:
      UserError: it is no log, which somebody must have sealed.
    """
    lines, whole = metrics_log.parse(log)
    if not whole:
        raise UserError(
            f"the log in the checkpoint of step {step} is none that a run has written: give "
            "another --workdir"
        )
    return [line for line in lines if line["step"] < step and line["split"] != "test"]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` up to the first that is torn, as the last one is by a kill.

    A log that cannot be read, or is no regular file, has none. Where the run is finished, and so
    its log whole, a line on stderr says that it is not.
    """
    path = folder / "metrics.jsonl"
    lines: list[dict[str, Any]] = []
    try:
        content = files.read_bytes(path, files.LARGEST_LOG)
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
    else:
        lines, whole = metrics_log.parse(content.decode(errors="replace"))
        why = "" if whole else f"is not what the run wrote after its line {len(lines)}"
    if why and (folder / "summary.json").exists():
        say(f"{path} {why}: its command, with --workdir={folder}, writes it again")
    return lines
