"""Files that somebody else made: opened only where they are regular, read up to a limit.

A symbolic link is followed, for data sets are often put together of links; what it leads to must
be a regular file too. A FIFO would wait for ever, a device never end.
"""

import errno
import hashlib
import io
import json
import os
import stat
from pathlib import Path
from typing import Any


def open_regular(path: Path) -> io.BufferedReader:
    """Opens a regular file for reading.

    Raises:
      OSError: it cannot be opened, or is a FIFO, a device, a socket or a folder.
    """
    _check(path, os.stat(path))  # to open a device alone may have effects
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read(path: Path, limit: int) -> bytes:
    """The bytes of a regular file.

    Raises:
      OSError: as of `open_regular`, or it has more than `limit` bytes.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"more than {limit:,} bytes", str(path))
    return data


def read_json(path: Path, limit: int) -> Any:
    """The content of a JSON file.

    Raises:
      OSError: as of `read`.
      ValueError: it is no JSON in UTF-8, or is nested too deep.
    """
    data = read(path, limit)
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from error


def sha256(path: Path) -> "hashlib._Hash":
    """SHA-256 of a regular file.

    Raises:
      OSError: as of `open_regular`.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256")


def memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
