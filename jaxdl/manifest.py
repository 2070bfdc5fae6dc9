"""A folder under seal: the length and SHA-256 of each of its files, and of this list itself."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAME = "manifest.json"


def seal(folder: Path) -> None:
    """Brings every file of a folder to the disk, then writes the manifest."""
    files = {}
    for name, path in _files(folder):
        with path.open("rb+") as file:
            files[name] = [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]
            os.fsync(file.fileno())
    manifest = {"files": files, "sha256": digest(files)}
    with (folder / NAME).open("w") as file:
        json.dump(manifest, file)
        file.flush()
        os.fsync(file.fileno())
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync(path)


def verify(folder: Path) -> None:
    """Holds every file against the manifest.

    Raises:
      ValueError: one differs, or is missing.
      OSError: one cannot be read.
    """
    manifest = json.loads((folder / NAME).read_bytes())
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or manifest.get("sha256") != digest(files):
        raise ValueError(f"{NAME} is not what was written")
    found = dict(_files(folder))
    for name, (size, sha256) in files.items():
        if name not in found:
            raise ValueError(f"{name} is missing")
        with found[name].open("rb") as file:
            if found[name].stat().st_size != size:
                raise ValueError(f"{name} has {found[name].stat().st_size} bytes, not {size}")
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ValueError(f"{name} is not what was written")


def sync(folder: Path) -> None:
    """Makes the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(files: dict[str, Any]) -> str:
    """SHA-256 of a list of files, as it stands in the manifest."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != NAME:
            yield path.relative_to(folder).as_posix(), path
