"""Arrays of a checkpoint on disk, written and read by orbax, and small helpers for its files.

Only this module imports orbax. `checkpoint.Checkpoints` calls it from a background thread.
"""

import contextlib
import errno
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import first_line
from jaxdl.run.checkpoint_record import DamagedError

# Orbax options by which the first process works alone, without a barrier of all processes.
_ALONE = {"primary_host": 0, "active_processes": {0}, "barrier_sync_key_prefix": "first"}


def write_arrays(folder: Path, flat: dict[str, np.ndarray]) -> None:
    """Writes arrays to a new folder, in this process alone.

    Args:
      folder: the folder to create.
      flat: arrays by path.
    """
    if jax.process_count() > 1:
        # Version 1 of orbax would synchronise all processes, wherever they are now.
        from orbax import checkpoint as old

        alone = old.options.MultiprocessingOptions(**_ALONE)
        handler = old.PyTreeCheckpointHandler(multiprocessing_options=alone)
        with old.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            checkpointer.save(folder, flat)
        return
    from orbax.checkpoint import v1 as orbax

    # Otherwise a save that fails leaves threads behind that wait for minutes at exit.
    context = orbax.Context()
    context.asynchronous.create_directories_asynchronously = False
    with context, _no_late_reports():
        orbax.save(folder, flat)


def read_arrays(folder: Path, stored: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Reads arrays written by `write_arrays`.

    Args:
      folder: the folder.
      stored: shape, type and sharding of each array by path. Empty arrays are not on disk; they are
        created here.

    Returns:
      The arrays by path.
    """
    from orbax.checkpoint import v1 as orbax

    context = orbax.Context()
    if jax.process_count() > 1:
        for name, value in _ALONE.items():
            setattr(context.multiprocessing, name, value)
    on_disk = {path: leaf for path, leaf in stored.items() if leaf.size}
    with context:
        arrays = orbax.load(folder, on_disk)
    empty = {
        path: jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)
        for path, leaf in stored.items()
        if not leaf.size
    }
    return arrays | empty


def damaged_error(folder: Path, error: Exception) -> DamagedError:
    """Returns the error to raise for the checkpoint in `folder` whose reading raised `error`."""
    return DamagedError(f"checkpoint {folder} is damaged ({reason(error)})")


def reason(error: Exception) -> str:
    """Returns a short cause: the operating system's message if there is one, else the first line.

    Tensorstore wraps the operating system's message in a long paragraph.
    """
    numbers = errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG
    messages = map(os.strerror, numbers)
    wrapped = next((message for message in messages if message in str(error)), None)
    return wrapped or getattr(error, "strerror", None) or first_line(error)


def delete_path(path: Path) -> None:
    """Deletes a file, a link or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _no_late_reports() -> Iterator[None]:
    """Context in which a failed save prints no traceback for each array that was being written.

    Threads of tensorstore report to an event loop that orbax has closed by then, which ends in
    `sys.unraisablehook`. Asyncio logs tasks that nobody awaits any more. Some reports come late, so
    both stay silent after a failure: there is deliberately no `finally`.
    """
    original_hook, logger = sys.unraisablehook, logging.getLogger("asyncio")
    level = logger.level

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            original_hook(unraisable)

    sys.unraisablehook = hook
    logger.setLevel(logging.CRITICAL)
    yield
    sys.unraisablehook = original_hook
    logger.setLevel(level)
