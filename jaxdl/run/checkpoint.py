"""Checkpoints: written through orbax in the background, verified before they are believed.

A checkpoint is a folder `checkpoints/STEP`:

    state/          the state, by orbax
    record.json     what the loop knows beside it
    metrics.jsonl   the log so far
    manifest.json   length and SHA-256 of each of these files, and of itself

It is written beside `checkpoints/` and renamed into it when it is complete and on disk: a kill
leaves none half-written, and who deletes `checkpoints/` while one is written makes none that lacks
a file. What a disk does to it later, the manifest shows.
"""

import contextlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl import checksums, files, memory, tree
from jaxdl.distributed import collectives, sharding
from jaxdl.errors import TrainingError, UserError
from jaxdl.run.checkpoint_io import damaged_error, delete_path, read_arrays, reason, write_arrays
from jaxdl.run.checkpoint_record import BEST, RECORD, WITHIN, DamagedError, Saved
from jaxdl.run.metrics_log import LAST_STEP


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, check: Callable[[], None] = lambda: None):
        """Opens `folder`, in a folder that exists.

        Args:
          folder: a folder for each step lies in it.
          check: raises where the run's folder is not the run's any more; called before each
            checkpoint becomes one.
        """
        self.folder = folder.absolute()  # orbax takes no relative path
        self._check = check
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, whole or damaged, ascending."""
        if not self.folder.is_dir():
            return []
        names = (path.name for path in self.folder.iterdir())
        steps = (int(name) for name in names if re.fullmatch(r"0|[1-9][0-9]{0,9}", name))
        return sorted(step for step in steps if step <= LAST_STEP)

    def newest_record(self) -> dict[str, Any] | None:
        """The record of the newest checkpoint whose record is intact; None: there is no such."""
        for step in reversed(self.steps()):
            with contextlib.suppress(DamagedError):
                return self.record(step)
        return None

    def save(
        self, step: int, state: Any, record: dict[str, Any], log: str, keep: Collection[int]
    ) -> None:
        """Copies the state off the device, then writes in the background.

        When the checkpoint is complete, those of other steps are deleted, but for `keep` and the
        newest of them. The state may be donated to the next step as soon as this returns.

        Raises:
          TrainingError: the save before this one failed.
        """
        self.wait()
        flat = sharding.on_host(state)
        if not collectives.is_host0():
            return
        self._pending = self._writer.submit(self._write, step, flat, record, log, set(keep))

    def wait(self, patiently: bool = True) -> None:
        """Returns when the last save is on disk; not `patiently`: at once if it still goes on.

        Raises:
          TrainingError: it failed.
        """
        if self._pending is None or not (patiently or self._pending.done()):
            return
        pending, self._pending = self._pending, None
        try:
            pending.result()
        except TrainingError:
            raise
        except Exception as error:  # orbax and tensorstore raise what they like
            self._check()  # else it failed because the folder is not there any more
            raise TrainingError(
                f"a checkpoint in {self.folder} was not written ({reason(error)}): fix that, and "
                "the same command goes on from the one before"
            ) from error

    def read(self, step: int) -> tuple[dict[str, Any], str]:
        """A checkpoint's record and log, after every file was held against the manifest.

        Raises:
          DamagedError: it is not what was written.
        """
        folder = self.folder / str(step)
        with _reading(folder):
            checksums.verify(folder)
            log = files.read_bytes(folder / "metrics.jsonl", files.LARGEST_LOG).decode()
        return self.record(step), log

    def record(self, step: int) -> dict[str, Any]:
        """A checkpoint's record alone, held against the manifest.

        Raises:
          DamagedError: it is not what was written.
        """
        folder = self.folder / str(step)
        with _reading(folder):
            checksums.verify(folder, ["record.json"])
            record = json.loads(files.read_bytes(folder / "record.json", files.LARGEST_JSON))
            if not isinstance(record, dict):
                raise ValueError("record.json is not an object")
            record.setdefault("data", "")
            for name, kind in RECORD.items():
                if not isinstance(record.get(name), kind):
                    raise ValueError(f"record.json has no {name}")
            for name, is_valid in WITHIN.items():
                if not is_valid(record[name]):
                    raise ValueError(f"record.json has a {name} that no run has written")
            if record["step"] != step:
                raise ValueError(f"it is of step {record['step']}")
            for name, kinds in BEST.items():
                if not isinstance(record["best"].get(name, ""), kinds):
                    raise ValueError(f"record.json has no {name} of the best")
            return record

    def restore(self, step: int, like: Any, part: str = "") -> Saved:
        """A checkpoint's content, its state in the structure and shardings of `like`.

        Where a run has several processes, it is on this one's first device.

        Args:
          step: one of `steps()`.
          like: any state of that structure, or the shapes and shardings of one.
          part: the path that `like` has in the state, `.state`; empty: it is all of it.

        Raises:
          DamagedError: it is not what was written.
          UserError: it is of another model.
        """
        folder = self.folder / str(step)
        record, log = self.read(step)
        leaves: dict[str, str] = record["leaves"]
        target = {part + path: leaf for path, leaf in tree.flatten(like).items()}
        here = {path: tree.shape(leaf) for path, leaf in target.items()}
        begins = (f"{part}.", f"{part}[") if part else ""
        inside = {path for path in leaves if path == part or path.startswith(begins)}
        for path in sorted(inside | here.keys()):
            there = leaves.get(path)
            if there != here.get(path):
                raise UserError(
                    f"checkpoint {folder} is of another model ({path}: {there} there, "
                    f"{here.get(path)} here): give another --workdir, or the code that wrote it"
                )
        own = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        given = target if jax.process_count() == 1 else {}
        try:
            stored = {
                path: tree.of_shape(text, given[path].sharding if path in given else own)
                for path, text in leaves.items()
            }
            needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in stored.values())
            if needed > memory.installed():
                raise ValueError(f"its state would take {needed / 2**30:,.1f} GiB of memory")
            found = read_arrays(folder / "state", stored)
            if tree.flat_digest({path: found[path] for path in leaves}) != record["state_sha256"]:
                raise ValueError("the state's SHA-256 is another")
            state = tree.unflatten(like, {path[len(part) :]: found[path] for path in target})
        except Exception as error:  # as in wait
            raise damaged_error(folder, error) from error
        return Saved(step, state, record, log)

    def set_aside(self, step: int) -> None:
        """Renames a checkpoint that is of no use any more, so that no step has it."""
        aside = self.folder / f"damaged-{step}"
        delete_path(aside)
        (self.folder / str(step)).rename(aside)

    def delete(self, step: int) -> None:
        """Deletes a checkpoint."""
        # Renamed first: a half-deleted folder must not have a number for a name.
        doomed = self.folder / f"old-{step}"
        delete_path(doomed)
        (self.folder / str(step)).rename(doomed)
        delete_path(doomed)

    def clear_leftovers(self) -> None:
        """Deletes what a killed process left half-written or half-deleted."""
        for path in (*self.folder.glob("old-*"), *self.folder.parent.glob(self._part("*"))):
            delete_path(path)

    def _part(self, step: str) -> str:
        """The name, beside the folder, of a checkpoint that is being written."""
        return f".{self.folder.name}-part-{step}"

    def close(self) -> None:
        """Waits for the last save.

        Raises:
          TrainingError: it failed.
        """
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def _write(
        self,
        step: int,
        flat: dict[str, np.ndarray],
        record: dict[str, Any],
        log: str,
        keep: set[int],
    ) -> None:
        """In the background: writes a checkpoint whole, then deletes what is not kept."""
        part = self.folder.parent / self._part(str(step))
        try:
            self._check()
            delete_path(part)
            part.mkdir()  # not its parents: a run folder that was moved is not made again
            write_arrays(part / "state", {path: a for path, a in flat.items() if a.size})
            leaves = {path: tree.shape(leaf) for path, leaf in flat.items()}
            known = {"leaves": leaves, "state_sha256": tree.flat_digest(flat)}
            (part / "record.json").write_text(json.dumps(record | known), encoding="utf-8")
            (part / "metrics.jsonl").write_text(log, encoding="utf-8")
            checksums.seal(part)
            self._check()
            self.folder.mkdir(exist_ok=True)
            if (self.folder / str(step)).exists():
                self.delete(step)
            part.rename(self.folder / str(step))
        except BaseException:
            delete_path(part)  # makes room again
            raise
        checksums.sync(self.folder)
        others = [other for other in self.steps() if other != step]
        for other in set(others[:-1]) - keep:
            self.delete(other)


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Within it whatever is wrong with a checkpoint's files is a DamagedError."""
    try:
        yield
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise damaged_error(folder, error) from error
