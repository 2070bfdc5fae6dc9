"""Writing of an export: a new folder that appears whole or not at all."""

import hashlib
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from jaxdl import files
from jaxdl.errors import UserError, writing


def check_new(folder: Path) -> None:
    """Checks that a folder does not exist or is empty.

    Raises:
      UserError: it exists and is not an empty folder.
    """
    files.check_encoding(folder, "output")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"--output={folder} exists and is not a folder: give a new folder")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--output={folder} is not empty: give a new folder")


def write(
    folder: Path, contents: Mapping[str, bytes], check: Callable[[Path], None] = lambda path: None
) -> None:
    """Writes files into a new folder.

    They are written under a temporary name beside it, which becomes the folder at the end. If
    anything fails, nothing is left.

    Args:
      folder: the folder, which does not exist or is empty.
      contents: content of each file by its name.
      check: called with the temporary folder before it becomes the folder.

    Raises:
      UserError: the folder is not empty.
    """
    check_new(folder)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = folder.parent / f".{folder.name}.{secrets.token_hex(8)}.part"
        part.mkdir()
    try:
        for name, content in contents.items():
            with files.replacing(part / name) as file:
                file.write(content)
        check(part)
        with writing(folder):
            part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def digests(contents: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each file by name."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
