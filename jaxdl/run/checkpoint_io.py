"""Arrays of a checkpoint on disk, written and read by orbax."""

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

# Orbax's words for: the first process, without the others.
_ALONE = {"primary_host": 0, "active_processes": {0}, "barrier_sync_key_prefix": "first"}


def write_arrays(folder: Path, flat: dict[str, np.ndarray]) -> None:
    """Writes arrays by orbax, in this process alone."""
    if jax.process_count() > 1:  # v1 would hold a meeting of all processes, wherever they are now
        from orbax import checkpoint as old

        alone = old.options.MultiprocessingOptions(**_ALONE)
        handler = old.PyTreeCheckpointHandler(multiprocessing_options=alone)
        with old.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            checkpointer.save(folder, flat)
        return
    from orbax.checkpoint import v1 as orbax

    # Else a save that fails leaves threads behind that wait for minutes at exit.
    context = orbax.Context()
    context.asynchronous.create_directories_asynchronously = False
    with context, _one_report():
        orbax.save(folder, flat)


@contextlib.contextmanager
def _one_report() -> Iterator[None]:
    """Within it a save that fails prints no traceback for each array that was being written.

    Threads of tensorstore report to an event loop that orbax has closed by then, which ends in
    `sys.unraisablehook`; and asyncio logs what nobody waits for any more. Some of it comes late:
    after a failure both stay silent.
    """
    before, logger = sys.unraisablehook, logging.getLogger("asyncio")
    level = logger.level

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook
    logger.setLevel(logging.CRITICAL)
    yield
    sys.unraisablehook = before
    logger.setLevel(level)


def read_arrays(folder: Path, stored: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Arrays by path in the shardings of `stored`; empty ones, which orbax lacks, made anew."""
    from orbax.checkpoint import v1 as orbax

    context = orbax.Context()
    if jax.process_count() > 1:
        for name, value in _ALONE.items():
            setattr(context.multiprocessing, name, value)
    empty = {path: leaf for path, leaf in stored.items() if not leaf.size}
    with context:
        found = orbax.load(folder, {p: leaf for p, leaf in stored.items() if p not in empty})
    made = {p: jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding) for p, leaf in empty.items()}
    return found | made


def damaged_error(folder: Path, error: Exception) -> DamagedError:
    """The error to raise for a checkpoint that `error` was found in."""
    return DamagedError(f"checkpoint {folder} is damaged ({reason(error)})")


def reason(error: Exception) -> str:
    """The operating system's words, which tensorstore buries in a paragraph of its own."""
    kinds = errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG
    known = map(os.strerror, kinds)
    buried = next((words for words in known if words in str(error)), None)
    return buried or getattr(error, "strerror", None) or first_line(error)


def delete_path(path: Path) -> None:
    """Deletes a file, a link or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
