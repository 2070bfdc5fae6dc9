"""One writer a folder: a file lock that the kernel releases when its process dies."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import IO, Any, Self

from jaxdl import files
from jaxdl.errors import TrainingError, UserError

PATIENCE = 0.2  # seconds: longer than another starter's look at the lock


class NoLocksError(OSError):
    """A file system that has no locks."""


class Lock:
    """Holds `path` to the end of its `with`, or of this process.

    Raises:
      UserError: another process holds it, or the file system has no locks.
      OSError: it cannot be made, or is no regular file.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file = files.open_regular(path, os.O_RDWR | os.O_CREAT, "r+")
        until = time.monotonic() + PATIENCE
        while not self._locked():
            if time.monotonic() > until:
                self._file.close()
                raise _held(path)
            time.sleep(PATIENCE / 10)
        self._file.truncate(0)
        self._file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}) + "\n")
        self._file.flush()

    def _locked(self) -> bool:
        try:
            return locked(self._file)
        except NoLocksError as error:
            self._file.close()
            raise UserError(
                f"--workdir={self._path.parent} can be written, but {error.strerror}, which keep a "
                "second process out: give a --workdir on another one, or mount it with locks"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def check(self) -> None:
        """Makes sure that the lock still lies where it was taken, and so keeps others out.

        Raises:
          TrainingError: it was deleted, or its folder was moved: another process may write there.
        """
        mine = os.fstat(self._file.fileno())
        try:
            there = os.lstat(self._path)
        except OSError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            raise TrainingError(
                f"{self._path} is gone: the run folder was moved or deleted while the run went on, "
                "so nothing more is written; start the run again with --workdir where it is now"
            )

    def release(self) -> None:
        """Lets the next writer in. The file stays: deleting it would let two in."""
        self._file.close()


def check_free(path: Path) -> None:
    """Refuses early, before anything slow, what `Lock` would refuse later.

    Raises:
      UserError: another process holds the lock.
    """
    try:
        with files.open_regular(path) as file:
            if not locked(file, fcntl.LOCK_SH):
                raise _held(path)
    except OSError:
        return  # no lock there yet; whether one can be made is found out by `Lock`


def locked(file: IO[Any], kind: int = fcntl.LOCK_EX) -> bool:
    """Locks an open file, without waiting; whoever inherits it holds the lock too.

    Raises:
      NoLocksError: it is on a file system without locks.
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
    try:
        holder = json.loads(files.read_bytes(path, 1000))
        who = f"process {int(holder['pid'])} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        who = "a process that has not said its name yet"
    return UserError(
        f"--workdir={path.parent} is in use by {who}: wait for its end, stop it, or give another "
        "--workdir"
    )
