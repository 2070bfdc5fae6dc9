"""File lock that allows one writer per folder; the kernel releases it when its process dies."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import IO, Any, Self

from jaxdl import files
from jaxdl.errors import TrainingError, UserError

PATIENCE = 0.2  # seconds to retry; `check_free` of another process holds the lock more briefly


class NoLocksError(OSError):
    """Raised on a file system without file locks."""


class Lock:
    """Exclusive lock of a file, until the end of its `with` block or of this process.

    The file names the holder's host and process id.

    Raises:
      UserError: another process holds the lock, or the file system has no locks.
      OSError: the file cannot be created, or is not a regular file.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file = files.open_regular(path, os.O_RDWR | os.O_CREAT, "r+")
        deadline = time.monotonic() + PATIENCE
        while not self._try_lock():
            if time.monotonic() > deadline:
                self._file.close()
                raise _held(path)
            time.sleep(PATIENCE / 10)
        self._file.truncate(0)
        self._file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}) + "\n")
        self._file.flush()

    def _try_lock(self) -> bool:
        try:
            return locked(self._file)
        except NoLocksError as error:
            self._file.close()
            raise UserError(
                f"--workdir={self._path.parent} can be written, but {error.strerror}, which keep a "
                "second process out: give one on another file system, or mount it with locks"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def check(self) -> None:
        """Checks that the lock file still exists at its path, and so keeps other processes out.

        Raises:
          TrainingError: the file was deleted or its folder moved: another process may write there.
        """
        held = os.fstat(self._file.fileno())
        try:
            current = os.lstat(self._path)
        except OSError:
            current = None
        if current is None or (current.st_dev, current.st_ino) != (held.st_dev, held.st_ino):
            raise TrainingError(
                f"{self._path} is gone: the run folder was moved or deleted while the run went on, "
                "so nothing more is written; start the run again with --workdir where it is now"
            )

    def release(self) -> None:
        """Releases the lock. The file stays: deleting it would allow two writers at once."""
        self._file.close()


def check_free(path: Path) -> None:
    """Checks that no process holds a lock, without taking it; for an early error message.

    Args:
      path: the lock file; need not exist.

    Raises:
      UserError: another process holds the lock.
    """
    try:
        with files.open_regular(path) as file:
            if not locked(file, fcntl.LOCK_SH):
                raise _held(path)
    except OSError:
        return  # no lock file yet; `Lock` reports errors of creating it


def locked(file: IO[Any], kind: int = fcntl.LOCK_EX) -> bool:
    """Tries to lock an open file, without waiting; processes that inherit it share the lock.

    Args:
      file: the open file.
      kind: `fcntl.LOCK_EX` (exclusive) or `fcntl.LOCK_SH` (shared).

    Returns:
      True if the file is now locked, False if another process holds a lock.

    Raises:
      NoLocksError: the file system has no locks.
    """
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        text = f"its file system has no file locks ({error.strerror})"
        raise NoLocksError(error.errno, text, file.name) from error


def _held(path: Path) -> UserError:
    """Error that names the process that holds a lock."""
    try:
        holder = json.loads(files.read_bytes(path, 1000))
        who = f"process {int(holder['pid'])} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        who = "a process that has not written its name yet"
    return UserError(
        f"--workdir={path.parent} is in use by {who}: wait for its end, stop it, or give another "
        "--workdir"
    )
