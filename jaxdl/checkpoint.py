"""Checkpoints: written through orbax in the background, there whole or not at all.

A checkpoint is a folder `checkpoints/STEP` with `state/` (orbax) and `record.json` (what the loop
knows). It is written under another name and renamed when it is complete, so a folder with a number
for a name is always whole, wherever the process died.
"""

import json
import os
import shutil
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from jaxdl import tree
from jaxdl.errors import TrainingError, UserError, first_line


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path):
        self._folder = folder.absolute()  # orbax takes no relative path
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def steps(self) -> list[int]:
        """Steps of which there is a whole checkpoint, ascending."""
        if not self._folder.is_dir():
            return []
        names = (path.name for path in self._folder.iterdir())
        return sorted(int(name) for name in names if name.isdecimal())

    def record(self, step: int) -> dict[str, Any]:
        """What was saved beside the state.

        Raises:
          UserError: the file is damaged.
        """
        path = self._folder / str(step) / "record.json"
        try:
            found = json.loads(path.read_text())
            if not isinstance(found, dict):
                raise ValueError("not a JSON object")
            return found
        except (OSError, ValueError) as error:
            raise UserError(
                f"checkpoint {path.parent} is damaged ({path.name}: {first_line(error)}): delete "
                "it to go on from an older one, or give another --workdir"
            ) from error

    def save(self, step: int, state: Any, record: dict[str, Any], keep: Collection[int]) -> None:
        """Copies the state off the device, then writes in the background.

        When the checkpoint is complete, those of other steps than `keep` and its own are deleted.
        The state may be donated to the next step as soon as this returns.

        Raises:
          TrainingError: the save before this one failed.
        """
        from orbax.checkpoint import v1 as orbax

        self.wait()
        part = self._folder / f"part-{step}"
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            (part / "record.json").write_text(json.dumps(record))
            writing = orbax.save_async(part / "state", tree.flatten(state))
        except OSError as error:
            text = f"cannot write {part} ({error.strerror or error}): make room, then start again"
            raise TrainingError(text) from error

        def finish() -> None:
            writing.result()
            final = self._folder / str(step)
            shutil.rmtree(final, ignore_errors=True)
            part.replace(final)
            _sync(self._folder)
            for old in set(self.steps()) - {step, *keep}:
                # Renamed first: a half-deleted folder must not have a number for a name.
                doomed = (self._folder / str(old)).rename(self._folder / f"old-{old}")
                shutil.rmtree(doomed, ignore_errors=True)

        self._pending = self._writer.submit(finish)

    def wait(self) -> None:
        """Returns when the last save is on disk.

        Raises:
          TrainingError: it failed.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except Exception as error:  # orbax and tensorstore raise what they like
            text = f"a checkpoint in {self._folder} was not written: {first_line(error)}"
            raise TrainingError(text) from error

    def restore(self, step: int, like: Any) -> Any:
        """The state of a step, in the structure, dtypes, shapes and shardings of `like`.

        Args:
          step: one of `steps()`.
          like: any state of that structure, such as the initial one.

        Raises:
          UserError: the checkpoint is damaged or of another model.
        """
        from orbax.checkpoint import v1 as orbax

        target = {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
            for path, leaf in tree.flatten(like).items()
        }
        path = self._folder / str(step) / "state"
        try:
            return tree.unflatten(like, orbax.load(path, target))
        except Exception as error:  # as in wait
            raise UserError(
                f"checkpoint {path.parent} cannot be restored ({first_line(error)}): delete it "
                "to go on from an older one, or give another --workdir"
            ) from error

    def close(self) -> None:
        """Waits for the last save and clears what interrupted ones left behind."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def clear_leftovers(self) -> None:
        """Deletes what a killed process left half-written or half-deleted."""
        for pattern in ("part-*", "old-*"):
            for path in self._folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
