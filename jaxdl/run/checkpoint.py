"""Checkpoints: written in the background, verified by SHA-256 when they are read.

A checkpoint is a folder `checkpoints/STEP`:

    state/          the state's arrays, by orbax (`checkpoint_io`)
    record.json     the other values of the training loop (`checkpoint_record`)
    metrics.jsonl   the log so far
    manifest.json   length and SHA-256 of each of these files, and of itself

It is written beside `checkpoints/` and renamed into it once it is complete and on disk. So a kill
leaves no checkpoint half-written, and deleting `checkpoints/` during a save cannot leave an
incomplete one. The manifest reveals later damage to the files.

`recovery` chooses which checkpoint to restore.
"""

import contextlib
import re
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from jaxdl import checksums, files, tree
from jaxdl.distributed import collectives, sharding
from jaxdl.errors import TrainingError
from jaxdl.run import checkpoint_files
from jaxdl.run.checkpoint_files import Content
from jaxdl.run.checkpoint_io import damaged_error, delete_path, reason
from jaxdl.run.checkpoint_record import DamagedError, Saved
from jaxdl.run.metrics_log import LAST_STEP

# The newest, the one before it, the best, the last that was due, the best at that time (a rewind
# returns to these two), and one that is being written.
MOST_CHECKPOINTS = 6
SOON = 10.0  # seconds; a run may find a better state many times a second


class Checkpoints:
    """Checkpoints of one run.

    Attributes:
      folder: absolute path of the folder that holds a folder for each step.
    """

    def __init__(self, folder: Path, check: Callable[[], None] = lambda: None):
        """Opens the checkpoints of a run.

        Args:
          folder: folder that holds a folder for each step. Its parent must exist.
          check: function that raises if the run folder no longer belongs to the run. It is called
            before a checkpoint is written and before it is renamed into place.
        """
        self.folder = folder.absolute()  # orbax accepts no relative path
        self._check = check
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[Any] | None = None
        self._waiting: Content | None = None
        self._written = time.monotonic()

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, whole or damaged, in ascending order."""
        if not self.folder.is_dir():
            return []
        names = (path.name for path in self.folder.iterdir())
        steps = (int(name) for name in names if re.fullmatch(r"0|[1-9][0-9]{0,9}", name))
        return sorted(step for step in steps if step <= LAST_STEP)

    def newest_record(self) -> dict[str, Any] | None:
        """Returns the newest record that is intact, or None if there is none."""
        for step in reversed(self.steps()):
            with contextlib.suppress(DamagedError):
                return self.record(step)
        return None

    def save(
        self,
        step: int,
        state: Any,
        record: dict[str, Any],
        log: str,
        keep: Collection[int],
        soon: bool = False,
    ) -> None:
        """Copies the state to the host, then writes a checkpoint in the background.

        The state may be donated to the next step as soon as this returns. Once the checkpoint is
        complete, those of other steps are deleted, except `keep` and the newest of them.

        Args:
          step: step of the checkpoint.
          state: pytree of arrays.
          record: entries of `RECORD` other than `leaves` and `state_sha256`.
          log: text of the run's log so far.
          keep: steps whose checkpoints are kept.
          soon: whether the copy may wait, up to `SOON` seconds after the last write, for the next
            save that keeps its step, for `close`, or for a copy that takes its place.

        Raises:
          TrainingError: the previous save failed.
        """
        waits = soon and time.monotonic() - self._written < SOON
        if not waits:
            self.wait()
        content = Content(step, sharding.on_host(state), record, log, set(keep))
        if collectives.is_host0() and waits:
            self._waiting = content
        elif collectives.is_host0():
            self._submit(content)

    def forget(self) -> None:
        """Discards a copy that waits to be written; waits for the last save as `wait` does."""
        self._waiting = None
        self.wait()

    def wait(self, patiently: bool = True) -> None:
        """Waits until the last save is on disk.

        Args:
          patiently: if False, returns at once while the save is still in progress.

        Raises:
          TrainingError: the save failed.
        """
        if self._pending is None or not (patiently or self._pending.done()):
            return
        pending, self._pending = self._pending, None
        try:
            pending.result()
        except TrainingError:
            raise
        except Exception as error:  # orbax and tensorstore raise errors of any type
            self._check()  # raises if the cause is that the run folder is gone
            raise TrainingError(
                f"a checkpoint in {self.folder} was not written ({reason(error)}): fix that, and "
                "the same command goes on from the one before"
            ) from error

    def newest_log(self) -> tuple[dict[str, Any], str] | None:
        """Returns the newest record and log that are intact, or None; the state is not read."""
        for step in reversed(self.steps()):
            with contextlib.suppress(DamagedError):
                return self.read(step, ("record.json", "metrics.jsonl"))
        return None

    def read(self, step: int, names: Collection[str] | None = None) -> tuple[dict[str, Any], str]:
        """Reads the record and the log of a checkpoint, and verifies its files.

        Args:
          step: one of `steps()`.
          names: names of the files to verify; None: all.

        Raises:
          DamagedError: a file differs from what was written.
        """
        folder = self.folder / str(step)
        with checkpoint_files.reading(folder):
            checksums.verify(folder, names)
            log = files.read_bytes(folder / "metrics.jsonl", files.LARGEST_LOG).decode()
        return self.record(step), log

    def record(self, step: int) -> dict[str, Any]:
        """Reads and verifies the record of a checkpoint, not its other files; arguments as `read`.

        Raises:
          DamagedError: the record differs from what was written.
        """
        return checkpoint_files.read_record(self.folder / str(step), step)

    def restore(self, step: int, like: Any, part: str = "") -> Saved:
        """Restores a checkpoint, with its state in the structure and shardings of `like`.

        If the run has several processes, the arrays are on the first device of this one.

        Args:
          step: one of `steps()`.
          like: a state of the same structure, or the shapes and shardings of one.
          part: path of `like` within the state, such as `.state`; empty for all of the state.

        Raises:
          DamagedError: a file differs from what was written.
          UserError: the checkpoint is of another model.
        """
        folder = self.folder / str(step)
        record, log = self.read(step)
        leaves: dict[str, str] = record["leaves"]
        target = {part + path: leaf for path, leaf in tree.flatten(like).items()}
        checkpoint_files.check_same_model(folder, leaves, target, part)
        alone = jax.process_count() == 1
        shardings = {path: leaf.sharding for path, leaf in target.items()} if alone else {}
        arrays = checkpoint_files.read_state(folder, record, shardings)
        try:
            state = tree.unflatten(like, {path[len(part) :]: arrays[path] for path in target})
        except Exception as error:  # as in `wait`
            raise damaged_error(folder, error) from error
        return Saved(step, state, record, log)

    def arrays(self, step: int) -> dict[str, jax.Array]:
        """Reads and verifies a checkpoint's arrays by path, without knowing its model.

        Args:
          step: one of `steps()`.

        Raises:
          DamagedError: a file differs from what was written.
        """
        record, _ = self.read(step)
        return checkpoint_files.read_state(self.folder / str(step), record, {})

    def set_aside(self, step: int) -> None:
        """Renames a damaged checkpoint, so that it is no longer among `steps()`."""
        aside = self.folder / f"damaged-{step}"
        delete_path(aside)
        (self.folder / str(step)).rename(aside)

    def delete(self, step: int) -> None:
        """Deletes a checkpoint."""
        # Renamed first: a half-deleted folder must not look like a checkpoint.
        old = self.folder / f"old-{step}"
        delete_path(old)
        (self.folder / str(step)).rename(old)
        delete_path(old)

    def clear_leftovers(self) -> None:
        """Deletes checkpoints that a killed process left half-written or half-deleted."""
        for path in (*self.folder.glob("old-*"), *self.folder.parent.glob(self._part("*"))):
            delete_path(path)

    def close(self) -> None:
        """Writes a copy that waits, waits for the last save and ends the writer.

        Raises:
          TrainingError: a save failed.
        """
        try:
            self.wait()
            if self._waiting:
                self._submit(self._waiting)
                self.wait()
        finally:
            self._writer.shutdown()

    def _submit(self, content: Content) -> None:
        """Has the thread write a checkpoint, and before it a copy that waits and is to be kept."""
        waiting, self._waiting = self._waiting, None
        contents = [content]
        if waiting and waiting.step in content.keep - {content.step}:
            contents = [waiting._replace(keep=content.keep), content]
        self._pending = self._writer.submit(list, map(self._write, contents))
        self._written = time.monotonic()

    def _part(self, step: str) -> str:
        """Returns the name of a checkpoint that is being written, in the run folder."""
        return f".{self.folder.name}-part-{step}"

    def _write(self, content: Content) -> None:
        """Writes a checkpoint, renames it into place and deletes older ones; runs in the thread."""
        step = content.step
        part = self.folder.parent / self._part(str(step))
        try:
            self._check()
            delete_path(part)
            part.mkdir()  # without parents: a run folder that was moved must not be created again
            checkpoint_files.write(part, content)
            self._check()
            self.folder.mkdir(exist_ok=True)
            if (self.folder / str(step)).exists():
                self.delete(step)
            part.rename(self.folder / str(step))
        except BaseException:
            delete_path(part)  # frees its disk space
            raise
        checksums.sync(self.folder)
        others = [other for other in self.steps() if other != step]
        for other in set(others[:-1]) - content.keep:  # the newest of the others is kept too
            self.delete(other)
