"""The run folder: config, environment, metrics, summary. `metrics.jsonl` is the one true log."""

import json
import math
import os
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from jaxdl import config as configs
from jaxdl import environment
from jaxdl.config import RunConfig
from jaxdl.errors import UserError


def choose_workdir(config: RunConfig) -> Path:
    """The run's folder: --workdir, or a new one by experiment and time."""
    if config.workdir:
        return Path(config.workdir).expanduser()
    name = configs.experiment_name(config).rpartition(".")[2]
    return Path("runs") / name / datetime.now().strftime("%Y-%m-%d-%H%M%S-%f")[:-3]


def claim(folder: Path, config: RunConfig) -> None:
    """Makes sure that this run may write here, before it writes anything.

    Raises:
      UserError: the folder cannot be written, holds the run of another config, holds a run and
        --resume=never, or holds something else.
    """
    try:
        _claim(folder, config)
    except OSError as error:
        raise UserError(
            f"--workdir={folder} cannot be written ({error.strerror}): give a --workdir that can"
        ) from error


def _claim(folder: Path, config: RunConfig) -> None:
    saved = folder / "config.json"
    if saved.exists():
        if config.resume == "never":
            raise UserError(
                f"--workdir={folder} holds a run and --resume=never: give another --workdir, or "
                "--resume=auto to go on with it"
            )
        _check_same(folder, read_json(saved), configs.to_dict(config), configs.identity(config))
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


def _check_same(
    folder: Path, saved: dict[str, Any], given: dict[str, Any], identity: dict[str, Any]
) -> None:
    missing = object()
    differing = [
        f"{name}={saved.get(name)} there, {given.get(name)} here"
        for name in sorted(set(saved) | set(given))
        if (name in identity or name not in given) and saved.get(name, missing) != given.get(name)
    ]
    if differing:
        raise UserError(
            f"--workdir={folder} holds the run of another config ({'; '.join(differing)}): give "
            "another --workdir, or the flags in its flags.txt"
        )


class Record:
    """Writes one run's folder, going on from `step`: lines after it are dropped, and the test."""

    def __init__(self, folder: Path, config: RunConfig, data: dict[str, Any], step: int):
        from tensorboardX import SummaryWriter

        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.json", json.dumps(configs.to_dict(config), indent=2) + "\n")
        write_text(folder / "flags.txt", configs.to_flags(config))
        about = environment.describe() | {"dataset": data}
        write_text(folder / "environment.json", json.dumps(about, indent=2) + "\n")
        kept = [x for x in read_metrics(folder) if x["step"] <= step and x["split"] != "test"]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_text(folder / "metrics.jsonl", text)
        self._log = (folder / "metrics.jsonl").open("a")
        # Written anew from the log, so that it shows no step twice.
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"))
        for line in kept:
            self._to_tensorboard(line)

    def log(self, line: dict[str, Any]) -> None:
        """Appends a line with `step`, `epoch`, `split`, metrics and `seconds`.

        A number that is not finite is written as null, for JSON has none.
        """
        line = {k: None if v in (math.inf, -math.inf) or v != v else v for k, v in line.items()}
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()  # who follows the file sees the line now
        self._to_tensorboard(line)

    def sync(self) -> None:
        """Makes the lines so far survive the process; called before a checkpoint counts on them."""
        self._log.flush()
        os.fsync(self._log.fileno())
        self._tensorboard.flush()

    def picture(self, path: Path, step: int) -> None:
        """Shows a PNG in TensorBoard too."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._tensorboard.add_image(path.stem, pixels, step, dataformats="HWC")

    def summarize(self, values: dict[str, Any]) -> None:
        """Writes `summary.json`."""
        write_text(self.folder / "summary.json", json.dumps(values, indent=2) + "\n")

    def close(self) -> None:
        """Flushes and closes all files."""
        self.sync()
        self._log.close()
        self._tensorboard.close()

    def _to_tensorboard(self, line: dict[str, Any]) -> None:
        for name, value in line.items():
            if name not in ("step", "split") and value is not None:
                self._tensorboard.add_scalar(f"{line['split']}/{name}", value, line["step"])


def metric_names(line: dict[str, Any]) -> list[str]:
    """The metrics of a line of `metrics.jsonl`: all but where it stands."""
    return [name for name in line if name not in ("step", "epoch", "split", "seconds")]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` up to the first that is torn, as the last one is by a kill."""
    path = folder / "metrics.jsonl"
    lines: list[dict[str, Any]] = []
    if path.exists():
        for text in path.read_text(errors="replace").splitlines():
            try:
                line = json.loads(text)
                whole = isinstance(line["step"], int) and isinstance(line["split"], str)
            except (ValueError, TypeError, KeyError):
                break
            if not whole:
                break
            lines.append(line)
    return lines


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a run folder.

    Raises:
      UserError: the file is missing, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): is {path.parent} a run folder?") from error
    if not isinstance(value, dict):
        raise UserError(f"cannot read {path} (not a JSON object): is {path.parent} a run folder?")
    return value


def write_text(path: Path, text: str) -> None:
    """Writes a file whole: a reader, or a restart, sees the old text or the new one."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
