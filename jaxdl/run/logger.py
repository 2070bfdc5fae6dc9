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
import tempfile
import time
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from jaxdl import config as configs
from jaxdl import files
from jaxdl.config import RunConfig
from jaxdl.console import say
from jaxdl.data import spec
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError, writing
from jaxdl.lock import Lock, check_free
from jaxdl.run import environment, metrics_log
from jaxdl.run.checkpoint import Checkpoints

CONFIG = "config.json"
DATA = "data"  # the entry of a checkpoint's identity that is the data's fingerprint
LOCK = ".lock"
# All that is written into a run folder, beside what an experiment names itself.
FILES = (
    *("config.json", "data.json", "flags.txt", "environment.json", "metrics.jsonl"),
    *("summary.json", "detours.json", "tokenizer.json", "samples.txt", "translations.txt", LOCK),
)
FOLDERS = ("checkpoints", "nonfinite", "plots", "tensorboard", "evaluations", "profile")
WRITTEN = (*FILES, *FOLDERS)
FLUSH_EVERY = 10.0  # seconds until TensorBoard sees a new line


def choose_workdir(config: RunConfig) -> Path:
    """The run's folder: --workdir, or a new one by experiment and time.

    Raises:
      UserError: as of `files.check_encoding`.
    """
    name = configs.experiment_name(config).rpartition(".")[2]
    started = datetime.now().strftime("%Y-%m-%d-%H%M%S-%f")[:-3]
    folder = Path(os.path.expanduser(config.workdir or f"runs/{name}/{started}"))  # Path's raises
    files.check_encoding(folder.absolute(), "workdir")  # the folder that it is started in, too
    return folder


def claim(folder: Path, config: RunConfig) -> Lock:
    """Makes sure that this run, and no other process, may write here; only then makes the folder.

    Raises:
      UserError: the folder cannot be written, is in use, holds the run of another config, holds a
        run and --resume=never, or holds something else.
    """
    with contextlib.ExitStack() as stack:
        try:
            _check_place(folder, config)
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(Lock(folder / LOCK))
            # Again: another run may have come and gone before.
            notice = _check_place(folder, config)
        except OSError as error:
            text = f"--workdir={folder} cannot be written ({error.strerror}): give one that can"
            raise UserError(text) from error
        stack.pop_all()
    if notice:
        say(notice)
    return lock


def refuse_if_used(config: RunConfig) -> None:
    """Says early, before anything slow, that another process writes the run's folder.

    Raises:
      UserError: one does, or as of `files.check_encoding`.
    """
    check_free(choose_workdir(config) / LOCK)


def _check_place(folder: Path, config: RunConfig) -> str:
    """Raises where a run may not be here; returns what its user should know where it may."""
    there: dict[str, Any] | None = None
    notice = ""
    files.refuse_links(folder, WRITTEN)
    files.refuse_kinds(folder, FILES, FOLDERS)
    saved, checkpoints = folder / "config.json", folder / "checkpoints"
    if saved.exists() or checkpoints.is_dir():
        if config.resume == "never":
            raise UserError(
                f"--workdir={folder} holds a run and --resume=never: give another --workdir, or "
                "--resume=auto to go on with it"
            )
        if config.resume == "auto":
            known = config_in_checkpoints(folder)
            try:
                there, notice = read_config(folder, known, configs.places(config))
            except UserError as error:
                if not checkpoints.is_dir():
                    raise
                notice = f"{error} Its checkpoints decide, and it is written anew"
        if there:
            ignored = configs.places(config) | configs.new_defaults(config, there)
            check_same(folder, configs.identity(config), there, ignored)
    elif folder.is_dir() and any(path.name[0] != "." for path in folder.iterdir()):
        raise UserError(
            f"--workdir={folder} is not empty and not a run folder: give a new or empty one"
        )
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise NotADirectoryError(20, "not a folder")
    with tempfile.TemporaryFile(dir=nearest):
        pass
    return notice


def check_same(
    folder: Path, here: dict[str, Any], there: dict[str, Any], ignored: Collection[str] = ()
) -> None:
    """Holds what decides the bits of a run here against what did there.

    Raises:
      UserError: they differ; it names each field.
    """
    differing = configs.differences(here, there, ignored)
    if differing:
        raise UserError(
            f"--workdir={folder} holds the run of another config ({'; '.join(differing)}): give "
            "another --workdir, the flags in its flags.txt, or --resume=force to go on all the same"
        )


class Record:
    """Writes one run's folder, going on after the lines that its log has so far."""

    def __init__(
        self, folder: Path, config: RunConfig, data: DataSpec, lines: list[dict[str, Any]]
    ):
        self.folder = folder
        files.clear_parts(folder)
        files.write_text(
            folder / "config.json", json.dumps(configs.to_dict(config), indent=2) + "\n"
        )
        files.write_text(folder / "flags.txt", configs.to_flags(config))
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


def config_in_checkpoints(folder: Path) -> dict[str, Any] | None:
    """The config in the newest checkpoint of a run folder whose record is intact; None: no such.

    It lacks the fields that are places (`configs.places`).
    """
    known = Checkpoints(folder / "checkpoints").newest_record()
    return None if known is None else config_of_record(known)


def config_of_record(record: dict[str, Any]) -> dict[str, Any]:
    """The config in a checkpoint's record, without the fields that are places."""
    return {name: value for name, value in record["identity"].items() if name != DATA}


def read_config(
    folder: Path, known: dict[str, Any] | None, places: Collection[str]
) -> tuple[dict[str, Any], str]:
    """The config of a run: every field that decides bits, and those of `places` that the file has.

    Args:
      folder: of the run.
      known: its config in a checkpoint; None: it has none, and config.json is all there is.
      places: the fields that config.json may decide.

    Returns:
      The fields, and a line about a config.json that is not as it was written; empty: it is.

    Raises:
      UserError: config.json cannot be read, and there is no checkpoint either.
    """
    try:
        written = files.read_json(folder / CONFIG)
    except UserError as error:
        if known is None:
            raise
        return known, f"{error} The config in its checkpoints counts"
    if known is None:
        return written, ""
    if configs.is_moved(known, written):
        places = {*places, "dataset"}
    merged = known | {name: written[name] for name in places if name in written}
    differing = configs.differences(known, {n: v for n, v in written.items() if n in known})
    if not differing:
        return merged, ""
    listed = "; ".join(differing)
    return merged, f"{folder / CONFIG} differs from the run's checkpoint ({listed}), which counts"


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
