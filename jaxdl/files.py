"""Safe reading and atomic writing of files in folders that other people may have made.

A file in such a folder may be a link to another place, a pipe that never ends, or larger than the
memory. The functions here never wait for a pipe, and read at most a given number of bytes. In run
folders they follow no links; data sets are often made of links, which `follow=True` allows.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from jaxdl.errors import UserError, first_line, writing

LARGEST_JSON = 1 << 26  # bytes; typical files have some thousand
LARGEST_LOG = 1 << 30  # bytes of metrics.jsonl
PARTS = ".*.part"  # pattern of the temporary names of `replacing`


def check_encoding(path: Path | str, flag: str = "") -> None:
    """Checks that a path's bytes on disk are its name in UTF-8.

    Python encodes names in the locale's encoding, and C++ libraries (Orbax, array_record, XLA) in
    UTF-8. If the two differ, the libraries write into a second folder.

    Args:
      path: the path.
      flag: name of the flag that it comes from, for the error message; may be empty.

    Raises:
      UserError: the bytes differ.
    """
    name = os.fspath(path)
    try:
        same = os.fsencode(name) == name.encode("utf-8")
    except UnicodeEncodeError:  # bytes that are not UTF-8, or characters that the locale lacks
        same = False
    if not same:
        where = f"--{flag}={name}" if flag else name
        raise UserError(
            f"{where}: the bytes of this path on disk are not its name in UTF-8, under which some "
            f"libraries look for it (the locale's encoding is {sys.getfilesystemencoding()}): give "
            "a path of plain ASCII letters, or set LC_ALL=C.UTF-8 for names that are UTF-8"
        )


def read_bytes(path: Path, largest: int, follow: bool = False) -> bytes:
    """Reads a regular file of limited size.

    Args:
      path: path of the file.
      largest: greatest size in bytes.
      follow: follow symbolic links.

    Raises:
      OSError: it cannot be read, is a link or not a regular file, or is larger.
    """
    with open_regular(path, follow=follow) as file:
        # Checked before reading, and again after it: the file may grow.
        large = os.fstat(file.fileno()).st_size > largest
        content = b"" if large else file.read(largest + 1)
    if large or len(content) > largest:
        raise OSError(errno.EFBIG, f"more than {largest:,} bytes", str(path))
    return content


def open_regular(
    path: Path, flags: int = os.O_RDONLY, mode: str = "rb", *, follow: bool = False
) -> Any:
    """Opens a regular file; refuses pipes, devices and, by default, symbolic links.

    Args:
      path: path of the file.
      flags: flags of `os.open`, such as `os.O_RDWR | os.O_CREAT`.
      mode: mode of `open`; text is UTF-8.
      follow: follow symbolic links.

    Returns:
      The open file.

    Raises:
      OSError: it cannot be opened, or is not a regular file.
    """
    with contextlib.suppress(FileNotFoundError):  # opening a device may itself have effects
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
      OSError: as for `open_regular`.
    """
    with open_regular(path, follow=True) as file:
        return hashlib.file_digest(file, "sha256")


def read_json(path: Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """Reads a JSON object from a file of a run folder.

    Args:
      path: path of the file.
      largest: greatest size in bytes.

    Raises:
      UserError: the file is missing, not a regular file, too large, or not a JSON object.
    """
    try:
        value = json.loads(read_bytes(path, largest))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"cannot read {path} ({why}): is {path.parent} a run folder?") from error
    if not isinstance(value, dict):
        raise UserError(f"cannot read {path} (not a JSON object): is {path.parent} a run folder?")
    return value


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a new file that replaces `path` atomically at the end of the block.

    A reader, or a restart after a kill, sees either the old content or the new one. The temporary
    name is random, so that nobody can prepare a link under it. A link at `path` itself is replaced,
    not followed. If the block raises, `path` is unchanged.

    Raises:
      OSError: the file cannot be written; the error's `filename` is `path`.
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
    """Writes a text file atomically, by `replacing`."""
    with replacing(path) as file:
        file.write(text.encode())


def clear_parts(folder: Path, age: float = 0) -> None:
    """Deletes temporary files that a killed process left in a folder and its subfolders.

    Links to folders are not followed. A folder with such a name is not deleted: `replacing` makes
    only files.

    Args:
      folder: the folder.
      age: least age of the files in seconds, where other processes may be writing.
    """
    newest = time.time() - age
    subfolders = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    for parent in (folder, *subfolders):
        for path in parent.glob(PARTS):
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                if not stat.S_ISDIR(status.st_mode) and (not age or status.st_mtime < newest):
                    path.unlink()


def check_kinds(folder: Path, named: Iterable[str], folders: Iterable[str]) -> None:
    """Checks that the entries of a run folder are regular files and folders.

    Args:
      folder: the run folder.
      named: names of its regular files; they need not exist.
      folders: names of its subfolders; they need not exist.

    Raises:
      UserError: an entry is a pipe or a device, a file in place of a folder, or a folder in place
        of a file.
    """
    kinds = (named, stat.S_ISREG, "regular file"), (folders, stat.S_ISDIR, "folder")
    for names, is_kind, kind in kinds:
        for path in (folder / name for name in names):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if not is_kind(path.lstat().st_mode):
                    raise UserError(
                        f"{path} is not a {kind}, but a run writes one there: delete it, or "
                        "give another --workdir"
                    )


def check_no_links(folder: Path, names: Iterable[str], depth: int = 100) -> None:
    """Checks that no symbolic link leads writes below a folder to another place.

    Args:
      folder: the folder, which may itself be a link, as the user named it.
      names: names of the files and folders in it that are written.
      depth: number of levels below these to check.

    Raises:
      UserError: one of them, or a file below, is a symbolic link.
    """
    for name in names:
        for path in _below(folder / name, depth):
            if path.is_symlink():
                raise UserError(
                    f"{path} is a symbolic link to {os.readlink(path)}, and a run must not write "
                    "elsewhere: put the file or folder itself there, or delete the link"
                )


def _below(path: Path, depth: int) -> Iterator[Path]:
    """Yields a path and everything at most `depth` levels below it; follows no links."""
    yield path
    if depth and not path.is_symlink():
        with contextlib.suppress(
            OSError
        ):  # not a folder, or one that the run cannot write to either
            for child in path.iterdir():
                yield from _below(child, depth - 1)
