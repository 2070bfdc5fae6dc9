"""A folder under seal: the length and SHA-256 of each of its files, and of this list itself."""

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from jaxdl import files

NAME = "manifest.json"


def seal(folder: Path) -> None:
    """Brings every file of a folder to the disk, then writes the manifest."""
    listed = {}
    for name, path in _files(folder):
        with path.open("rb+") as file:
            listed[name] = [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]
            os.fsync(file.fileno())
    manifest = {"files": listed, "sha256": digest(listed)}
    with (folder / NAME).open("w", encoding="utf-8") as file:
        json.dump(manifest, file)
        file.flush()
        os.fsync(file.fileno())
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync(path)


def verify(folder: Path, names: Collection[str] | None = None) -> None:
    """Holds the files of a folder against the manifest.

    Args:
      folder: that was sealed.
      names: of the files to look at; None: all that the manifest lists.

    Raises:
      ValueError: one differs, or is missing.
      OSError: one cannot be read.
    """
    manifest = json.loads(files.read_bytes(folder / NAME, files.LARGEST_JSON))
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict) or manifest.get("sha256") != digest(listed):
        raise ValueError(f"{NAME} is not what was written")
    present = dict(_files(folder))
    for name in listed if names is None else names:
        if name not in present or name not in listed:
            raise ValueError(f"{name} is missing")
        size, sha256 = listed[name]
        with files.open_regular(present[name]) as file:
            if os.fstat(file.fileno()).st_size != size:
                raise ValueError(f"{name} has {os.fstat(file.fileno()).st_size} bytes, not {size}")
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ValueError(f"{name} is not what was written")


def sync(folder: Path) -> None:
    """Makes the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(listed: dict[str, Any]) -> str:
    """SHA-256 of a list of files, as it stands in the manifest."""
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and paths of the regular files below a folder, but for the manifest; no links."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name != NAME:
            yield path.relative_to(folder).as_posix(), path
