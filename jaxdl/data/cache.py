"""The user's cache folder: decoded splits (and compiled programs), safe to delete at any time."""

import contextlib
import hashlib
import os
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from jaxdl import files
from jaxdl.console import say
from jaxdl.data.claims import claim
from jaxdl.errors import UserError

DIGEST = hashlib.sha256().digest_size
Value = TypeVar("Value")


def folder() -> Path:
    """`$XDG_CACHE_HOME/jaxdl`, or `~/.cache/jaxdl`.

    Raises:
      UserError: neither is there.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxdl"
    except RuntimeError as error:
        raise UserError(
            f"user {os.getuid()} has no home folder: set XDG_CACHE_HOME to a folder for caches"
        ) from error


def read(name: str) -> dict[str, np.ndarray] | None:
    """The arrays kept under a name, or None where there are none or the file is damaged.

    The file is a SHA-256, and what it is of: an uncompressed .npz.
    """
    try:
        with files.open_regular(_path(name), follow=True) as file:
            if file.read(DIGEST) != hashlib.file_digest(file, "sha256").digest():
                return None
            file.seek(DIGEST)
            with zipfile.ZipFile(file) as archive:
                # As `write` makes it; what is compressed could be a bomb.
                if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
                    return None
            file.seek(DIGEST)
            with np.load(file, allow_pickle=False) as arrays:
                return {key: arrays[key] for key in arrays.files}
    except Exception:  # a file that another program made raises whatever it leads zipfile to
        return None


def write(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Keeps arrays under a name, all of it; where that cannot be written, says so and goes on."""
    path = _path(name)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb+") as file:
            file.write(bytes(DIGEST))
            np.savez(file, allow_pickle=False, **arrays)
            file.seek(DIGEST)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            file.write(digest)
        part.replace(path)  # a power cut may tear it: then its digest is another
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        say(f"{path} not kept ({error.strerror}): each start decodes anew; set XDG_CACHE_HOME")


def once(name: str, find: Callable[[], Value | None], make: Callable[[], Value]) -> Value:
    """Returns the value kept under a name; else one process makes it while others wait.

    Args:
      name: under which `make` keeps it.
      find: looks for it, and returns None where it is not there or does not fit.
      make: makes it, and keeps it by `write`.
    """
    value = find()
    if value is not None:
        return value
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # where nothing can be kept, which `write` says
            stack.enter_context(claim(_path(name)))
        value = find()
        return make() if value is None else value


def joined(splits: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of several splits in one dictionary, for `write`; `part` takes them out again."""
    return {f"{name} {field}": a for name, split in splits.items() for field, a in split.items()}


def part(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The arrays of one split of those that `joined` made; none where it is not among them."""
    start = f"{name} "
    return {key.removeprefix(start): a for key, a in arrays.items() if key.startswith(start)}


def _path(name: str) -> Path:
    return folder() / f"{name}.npz"
