"""Files of folders that other people may have made: read with care, and written whole.

A file in such a folder may be a link to somewhere else, a pipe that never ends, or larger than the
memory. Nothing here waits for a pipe, or reads more than it was told to. In run folders no link is
followed; data sets are often put together of links, and may be read through them (`follow`).
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from jaxdl.errors import UserError, first_line, writing

LARGEST_JSON = 1 << 26  # bytes; a real one has some thousand
LARGEST_LOG = 1 << 30  # bytes of metrics.jsonl
PARTS = ".*.part"  # the pattern of the names that `replacing` writes under


def check_encoding(path: Path | str, flag: str = "") -> None:
    """Refuses a path that C++ libraries would take for another one, or cannot take at all.

    Python encodes a name as the locale says, and they (orbax, array_record, XLA) as UTF-8: where
    the two differ, half of what is written ends up in a second folder.

    Args:
      path: as Python has it.
      flag: that named it; empty: none did.

    Raises:
      UserError: its bytes on disk are not its name in UTF-8.
    """
    name = os.fspath(path)
    try:
        same = os.fsencode(name) == name.encode("utf-8")
    except UnicodeEncodeError:  # bytes that are no UTF-8, or letters that the locale lacks
        same = False
    if not same:
        where = f"--{flag}={name}" if flag else name
        raise UserError(
            f"{where}: the bytes of this path on disk are not its name in UTF-8, under which some "
            f"libraries look for it (the locale's encoding is {sys.getfilesystemencoding()}): give "
            "a path of plain ASCII letters, or set LC_ALL=C.UTF-8 for names that are UTF-8"
        )


def read_bytes(path: Path, largest: int, follow: bool = False) -> bytes:
    """Reads a regular file of at most `largest` bytes; through links if told to `follow` them.

    Raises:
      OSError: it cannot be read, is a link or no regular file, or is larger.
    """
    with open_regular(path, follow=follow) as file:
        large = os.fstat(file.fileno()).st_size > largest  # known before so much is read
        content = b"" if large else file.read(largest + 1)
    if large or len(content) > largest:
        raise OSError(errno.EFBIG, f"more than {largest:,} bytes", str(path))
    return content


def open_regular(
    path: Path, flags: int = os.O_RDONLY, mode: str = "rb", *, follow: bool = False
) -> Any:
    """Opens a regular file, and nothing else: no pipe, no device, and no link unless told so.

    Args:
      path: of the file.
      flags: of `os.open`, such as `os.O_RDWR | os.O_CREAT`.
      mode: of `open`; text is UTF-8.
      follow: follow symbolic links.

    Raises:
      OSError: it cannot be opened, or is no regular file.
    """
    with contextlib.suppress(FileNotFoundError):  # to open a device alone may have effects
        _check_regular(path, os.stat(path, follow_symlinks=follow))
    safely = flags | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, safely, 0o666)
    try:
        _check_regular(path, os.fstat(descriptor))
        return open(descriptor, mode, encoding=None if "b" in mode else "utf-8")
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "a symbolic link", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def sha256(path: Path) -> "hashlib._Hash":
    """SHA-256 of a regular file, through links.

    Raises:
      OSError: as of `open_regular`.
    """
    with open_regular(path, follow=True) as file:
        return hashlib.file_digest(file, "sha256")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object from a file of a run folder.

    Raises:
      UserError: the file is missing, no regular file, too large, or not a JSON object.
    """
    try:
        value = json.loads(read_bytes(path, LARGEST_JSON))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"cannot read {path} ({why}): is {path.parent} a run folder?") from error
    if not isinstance(value, dict):
        raise UserError(f"cannot read {path} (not a JSON object): is {path.parent} a run folder?")
    return value


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a new file that takes the place of `path` at the end of the block.

    A reader, or a restart after a kill, sees the old content or the new one. It is written under a
    name that cannot be guessed, so that no link can lie in wait; a link at `path` itself is
    replaced, not followed. Where the block raises, `path` stays as it was.

    Raises:
      OSError: it cannot be written; its `filename` is `path`.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with writing(path):
        descriptor = os.open(part, flags, 0o666)
    try:
        with writing(path):
            with open(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole, see `replacing`."""
    with replacing(path) as file:
        file.write(text.encode())


def clear_parts(folder: Path) -> None:
    """Deletes what a killed process left of `replacing` in a folder and the folders in it.

    No link to a folder is followed. A folder of such a name is left: it is somebody's own.
    """
    inside = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    for place in (folder, *inside):
        for path in place.glob(PARTS):
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)


def refuse_kinds(folder: Path, named: Iterable[str], folders: Iterable[str]) -> None:
    """Makes sure that nothing else lies where a run writes its files and folders.

    Args:
      folder: of the run.
      named: of the regular files in it.
      folders: of the folders in it.

    Raises:
      UserError: a pipe, a device, a file in the place of a folder, or the other way round.
    """
    kinds = (named, stat.S_ISREG, "regular file"), (folders, stat.S_ISDIR, "folder")
    for names, is_one, kind in kinds:
        for path in (folder / name for name in names):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if not is_one(path.lstat().st_mode):
                    raise UserError(
                        f"{path} is not a {kind}, and one is written there: delete it, or give "
                        "another --workdir"
                    )


def refuse_links(folder: Path, names: Iterable[str], depth: int = 100) -> None:
    """Makes sure that what is written below a folder stays in it.

    Args:
      folder: which may itself be a link, for its user has named it.
      names: of the files and folders in it that are written.
      depth: levels below these that are looked at.

    Raises:
      UserError: one of them is a symbolic link.
    """
    for name in names:
        for path in _below(folder / name, depth):
            if path.is_symlink():
                raise UserError(
                    f"{path} is a symbolic link to {os.readlink(path)}, and what is written here "
                    "must not end up elsewhere: put the file or folder itself there, or delete it"
                )


def _below(path: Path, depth: int) -> Iterator[Path]:
    """A path, and all that lies so many levels below it; no link is followed."""
    yield path
    if depth and not path.is_symlink():
        with contextlib.suppress(OSError):  # no folder; or nobody can write there either
            for each in path.iterdir():
                yield from _below(each, depth - 1)
