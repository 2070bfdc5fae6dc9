"""Files of one checkpoint: written into a new folder, and verified when they are read."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl import checksums, files, memory, tree
from jaxdl.errors import UserError
from jaxdl.run.checkpoint_io import damaged_error, read_arrays, write_arrays
from jaxdl.run.checkpoint_record import BEST, CONTENT_CHECKS, RECORD


class Content(NamedTuple):
    """Content of a checkpoint that is to be written; see `Checkpoints.save`.

    Attributes:
      step: the step.
      flat: arrays of the state by path.
      record: entries of `RECORD` other than `leaves` and `state_sha256`.
      log: text of the run's log so far.
      keep: steps whose checkpoints are kept.
    """

    step: int
    flat: dict[str, np.ndarray]
    record: dict[str, Any]
    log: str
    keep: set[int]


def write(part: Path, content: Content) -> None:
    """Writes the files of a checkpoint to a new folder, and seals it."""
    flat = content.flat
    write_arrays(part / "state", {path: a for path, a in flat.items() if a.size})
    leaves = {path: tree.format_shape(leaf) for path, leaf in flat.items()}
    record = content.record | {"leaves": leaves, "state_sha256": tree.flat_digest(flat)}
    (part / "record.json").write_text(json.dumps(record), encoding="utf-8")
    (part / "metrics.jsonl").write_text(content.log, encoding="utf-8")
    checksums.seal(part)


def read_state(
    folder: Path, record: dict[str, Any], shardings: Mapping[str, jax.sharding.Sharding]
) -> dict[str, jax.Array]:
    """Reads the arrays of a checkpoint, and verifies their SHA-256.

    Args:
      folder: the checkpoint.
      record: its record.
      shardings: shardings by path; other arrays are on the first device of this process.

    Raises:
      DamagedError: the arrays differ from what was written.
    """
    local = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    leaves: dict[str, str] = record["leaves"]
    try:
        stored = {
            path: tree.parse_shape(text, shardings.get(path, local))
            for path, text in leaves.items()
        }
        needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in stored.values())
        if needed > memory.installed():
            raise ValueError(f"its state would take {needed / 2**30:,.1f} GiB of memory")
        arrays = read_arrays(folder / "state", stored)
        if tree.flat_digest({path: arrays[path] for path in leaves}) != record["state_sha256"]:
            raise ValueError("the SHA-256 of the state differs from the record's")
    except Exception as error:  # as in `Checkpoints.wait`
        raise damaged_error(folder, error) from error
    return arrays


def check_same_model(
    folder: Path, stored: dict[str, str], target: dict[str, Any], part: str
) -> None:
    """Checks that a checkpoint has the arrays of a state.

    Args:
      folder: the checkpoint.
      stored: type and shape of its arrays by path.
      target: arrays of the state, or their shapes, by path.
      part: path of the state within the checkpoint; only arrays below it are compared.

    Raises:
      UserError: an array is missing in one of them, or differs in type or shape.
    """
    shapes = {path: tree.format_shape(leaf) for path, leaf in target.items()}
    below = (f"{part}.", f"{part}[") if part else ""
    stored_below = {path for path in stored if path == part or path.startswith(below)}
    for path in sorted(stored_below | shapes.keys()):
        if stored.get(path) != shapes.get(path):
            raise UserError(
                f"checkpoint {folder} is of another model ({path}: {stored.get(path)} there, "
                f"{shapes.get(path)} here): give another --workdir, or the code that wrote it"
            )


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Context that turns any error in reading a checkpoint's files into a DamagedError."""
    try:
        yield
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise damaged_error(folder, error) from error


def read_record(folder: Path, step: int) -> dict[str, Any]:
    """Reads and verifies the record of a checkpoint, not its other files.

    Args:
      folder: the checkpoint.
      step: its step.

    Raises:
      DamagedError: the record differs from what was written.
    """
    with reading(folder):
        checksums.verify(folder, ["record.json"])
        record = json.loads(files.read_bytes(folder / "record.json", files.LARGEST_JSON))
        if not isinstance(record, dict):
            raise ValueError("record.json is not an object")
        record.setdefault("data", "")
        record.setdefault("ends", [])
        record.setdefault("metric", [])
        record.setdefault("logged", False)
        for name, kind in RECORD.items():
            if not isinstance(record.get(name), kind):
                raise ValueError(f"record.json has no {name}")
        for name, is_valid in CONTENT_CHECKS.items():
            if not is_valid(record[name]):
                raise ValueError(f"record.json has an invalid {name}")
        if record["step"] != step:
            raise ValueError(f"record.json is of step {record['step']}, not {step}")
        for name, kinds in BEST.items():
            if not isinstance(record["best"].get(name, ""), kinds):
                raise ValueError(f"record.json has no {name} of the best")
        return record
