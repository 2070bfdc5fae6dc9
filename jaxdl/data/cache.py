"""The user's cache folder: decoded splits, downloads, programs; safe to delete at any time."""

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
    """Returns the cache folder: `$XDG_CACHE_HOME/jaxdl`, or `~/.cache/jaxdl`.

    Raises:
      UserError: the user has no home folder, and XDG_CACHE_HOME is not set.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxdl"
    except RuntimeError as error:
        raise UserError(
            f"user {os.getuid()} has no home folder: set XDG_CACHE_HOME to a folder for caches"
        ) from error


def read(name: str) -> dict[str, np.ndarray] | None:
    """Reads the arrays cached under a name.

    The file is a SHA-256 digest followed by the uncompressed .npz file that it belongs to.

    Args:
      name: name that `write` was called with.

    Returns:
      The arrays by name, or None if the file is absent or damaged.
    """
    try:
        with files.open_regular(_path(name), follow=True) as file:
            if file.read(DIGEST) != hashlib.file_digest(file, "sha256").digest():
                return None
            file.seek(DIGEST)
            with zipfile.ZipFile(file) as archive:
                # `write` never compresses, and a compressed file could be a zip bomb.
                if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
                    return None
            file.seek(DIGEST)
            with np.load(file, allow_pickle=False) as arrays:
                return {key: arrays[key] for key in arrays.files}
    except Exception:  # zipfile and NumPy may raise any error on a file of another program
        return None


def write(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Caches arrays under a name, atomically.

    A failure to write is reported in one line, and is not an error.

    Args:
      name: file name without its ending.
      arrays: arrays by name.
    """
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
        part.replace(path)  # without fsync: a file torn by a power cut fails its digest
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        say(f"{path} not kept ({error.strerror}): each start decodes anew; set XDG_CACHE_HOME")


def get_or_make(name: str, find: Callable[[], Value | None], make: Callable[[], Value]) -> Value:
    """Returns a cached value, or makes it in one process while the others wait.

    Args:
      name: name under which `make` writes the value.
      find: reads the value; None if it is absent or does not fit.
      make: computes the value, and caches it by `write`.
    """
    value = find()
    if value is not None:
        return value
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # the folder is not writable: `write` reports that
            stack.enter_context(claim(_path(name)))
        value = find()
        return make() if value is None else value


def join_splits(splits: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Joins the arrays of several splits into one dictionary for `write`; see `select_split`.

    >>> list(join_splits({"train": {"image": np.zeros(2)}, "test": {"image": np.zeros(1)}}))
    ['train image', 'test image']
    """
    return {
        f"{name} {field}": array for name, split in splits.items() for field, array in split.items()
    }


def select_split(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Selects the arrays of one split from those that `join_splits` made; {} if it has none."""
    prefix = f"{name} "
    return {
        key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)
    }


def _path(name: str) -> Path:
    return folder() / f"{name}.npz"
