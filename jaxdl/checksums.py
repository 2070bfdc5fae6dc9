"""Sealed folders: a manifest has the size and SHA-256 of each file, and its own SHA-256."""

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from jaxdl import files

NAME = "manifest.json"


def seal(folder: Path) -> None:
    """Syncs every file of a folder to the disk, then writes the manifest."""
    entries = {}
    for name, path in _files(folder):
        with path.open("rb+") as file:
            entries[name] = [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]
            os.fsync(file.fileno())
    manifest = {"files": entries, "sha256": digest(entries)}
    with (folder / NAME).open("w", encoding="utf-8") as file:
        json.dump(manifest, file)
        file.flush()
        os.fsync(file.fileno())
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync(path)


def verify(folder: Path, names: Collection[str] | None = None) -> None:
    """Verifies the files of a sealed folder against its manifest.

    Args:
      folder: the sealed folder.
      names: names of the files to verify; None: all files in the manifest.

    Raises:
      ValueError: a file differs or is missing, or the manifest is damaged.
      OSError: a file cannot be read.
    """
    manifest = json.loads(files.read_bytes(folder / NAME, files.LARGEST_JSON))
    entries = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(entries, dict) or manifest.get("sha256") != digest(entries):
        raise ValueError(f"{NAME} is not what was written")
    present = dict(_files(folder))
    for name in entries if names is None else names:
        if name not in present or name not in entries:
            raise ValueError(f"{name} is missing")
        size, sha256 = entries[name]
        with files.open_regular(present[name]) as file:
            if os.fstat(file.fileno()).st_size != size:
                raise ValueError(f"{name} has {os.fstat(file.fileno()).st_size} bytes, not {size}")
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ValueError(f"{name} is not what was written")


def sync(folder: Path) -> None:
    """Syncs the entries of a folder to the disk, so that its names survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(listed: dict[str, Any]) -> str:
    """SHA-256 of the manifest's list of files."""
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and paths of the regular files below a folder, without links and the manifest."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name != NAME:
            yield path.relative_to(folder).as_posix(), path
