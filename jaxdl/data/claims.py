"""Claims on files and folders: one process makes the target while the others wait for it."""

import contextlib
import fcntl
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from jaxdl import lock
from jaxdl.console import say

TRIES = 20  # attempts to make a folder that other processes delete


@contextlib.contextmanager
def claim(target: Path) -> Iterator[Path]:
    """Holds the exclusive right to make `target`; waits while another process holds it.

    Inside the context the caller checks again whether the target exists. If not, it makes the
    target under the temporary path, and renames that path to the target. The temporary path is
    unique to this claim. Whatever is left under it is deleted at the end, and so are leftovers of
    processes that were killed. Folders that the claim created and that stay empty are deleted too.

    A file system without `flock` is reported in one line. Then two processes may make the same
    target, but each renames only its own temporary path.

    Args:
      target: path of the file or folder to make.

    Yields:
      The temporary path, in the folder of the target.

    Raises:
      OSError: the folder of the target cannot be written.
    """
    folder = target.parent
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    part = folder / f".{target.name}.{uuid.uuid4().hex}.part"
    try:
        with _lock(folder / f".{target.name}.lock", target) as exclusive:
            if exclusive:
                for stale in folder.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 32}.part"):
                    _delete(stale)
            try:
                yield part
            finally:
                _delete(part)
    finally:
        for path in new_folders:
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def _lock(path: Path, target: Path) -> Iterator[bool]:
    """Holds a lock file, and deletes it at the end.

    Yields:
      True if the lock is held, False if the file system has no locks.
    """
    while True:
        with _open(path) as file:
            held = _wait(file, target)
            if held and not _same(file, path):
                continue  # its last holder deleted the file, so others lock a new one
            try:
                if held:
                    file.truncate(0)
                    file.write(str(os.getpid()))
                    file.flush()
                yield held
            finally:
                path.unlink(missing_ok=True)
            return


def _open(path: Path) -> IO[str]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    for attempt in range(TRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.fdopen(os.open(path, flags, 0o666), "r+", encoding="utf-8")
        except FileNotFoundError:  # another process has just deleted the folder
            if attempt == TRIES - 1:
                raise
    raise AssertionError


def _wait(file: IO[str], target: Path) -> bool:
    """Locks an open file, without a time limit; returns False if the file system has no locks."""
    try:
        if not lock.locked(file):
            holder = file.read(20).strip()
            who = f"process {holder}" if holder.isdecimal() else "another process"
            say(f"waiting for {who}, which prepares {target}")
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        say(f"{target.parent}: {error.strerror}: prepare data in one process")
        return False
    return True


def _same(file: IO[str], path: Path) -> bool:
    """Returns True if the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _delete(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
