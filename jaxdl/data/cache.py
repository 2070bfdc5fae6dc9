"""The user's cache folder: decoded splits (and compiled programs), safe to delete at any time."""

import contextlib
import os
import zipfile
from pathlib import Path

import numpy as np

from jaxdl.errors import UserError
from jaxdl.progress import say


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
    """The arrays kept under a name, or None where there are none or the file is damaged."""
    path = folder() / f"{name}.npz"
    try:
        with zipfile.ZipFile(path) as file:
            # As `write` makes it; what is compressed could be a bomb.
            if any(item.compress_type != zipfile.ZIP_STORED for item in file.infolist()):
                return None
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}  # zip's CRC is checked here
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def write(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Keeps arrays under a name, all of it; where that cannot be written, says so and goes on."""
    path = folder() / f"{name}.npz"
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        say(f"{path} not kept ({error.strerror}): each start decodes anew; set XDG_CACHE_HOME")


def joined(splits: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of several splits in one dictionary, for `write`; `part` takes them out again."""
    return {f"{name} {field}": a for name, split in splits.items() for field, a in split.items()}


def part(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The arrays of one split of those that `joined` made; none where it is not among them."""
    start = f"{name} "
    return {key.removeprefix(start): a for key, a in arrays.items() if key.startswith(start)}
