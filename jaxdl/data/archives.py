"""Readers of the official archives of MNIST, CIFAR and IMDB; every length is checked.

Shapes: N images; MNIST's are uint8 [N, 28, 28, 1], CIFAR's uint8 [N, 32, 32, 3].
"""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from jaxdl.errors import UserError, first_line

LARGEST = 1 << 30  # limit of unpacked bytes; the real archives stay far below it
ENTRIES = 200_000  # limit of entries of a tar file; IMDB's has half as many


def idx(path: Path) -> np.ndarray:
    """Reads a gzipped IDX file of uint8 (LeCun et al., 1998).

    Args:
      path: path of the file.

    Returns:
      The array, uint8, with the dimensions that the header gives.

    Raises:
      UserError: the file is damaged, or is not an IDX file of bytes.
    """
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, first_line(error)) from error
    if len(data) > LARGEST or len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise damaged(path, "not an IDX file of bytes")
    header = 4 + 4 * data[3]
    shape = tuple(np.frombuffer(data[4:header], ">u4").tolist())
    if len(data) < header or len(data) - header != int(np.prod(shape, dtype=object)):
        raise damaged(path, f"{len(data) - header} bytes where the header says {shape}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_members(path: Path, names: list[str]) -> dict[str, bytes]:
    """Reads the named files of a gzipped tar file into memory.

    Args:
      path: path of the tar file.
      names: names of the entries to read.

    Returns:
      The bytes of each entry by its name.

    Raises:
      UserError: the archive lacks one of the names, or `read_matching` refuses it.
    """
    contents = dict(read_matching(path, names.__contains__))
    for name in names:
        if name not in contents:
            raise damaged(path, f"{name} is not in it")
    return contents


def read_matching(path: Path, is_wanted: Callable[[str], Any]) -> Iterator[tuple[str, bytes]]:
    """Reads the files of a gzipped tar file whose names match; nothing is written to disk.

    Args:
      path: path of the tar file.
      is_wanted: predicate on the name of an entry.

    Yields:
      The name and the bytes of each matching file.

    Raises:
      UserError: the archive is damaged, or an entry is neither a file nor a folder, has a path
        outside of the archive, is sparse, or unpacks to more than `LARGEST` bytes. Sparse files
        are refused because their holes take no bytes of the archive.
    """
    try:
        with _Limited(path) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for number, member in enumerate(tar):
                _check_member(path, member)
                if number >= ENTRIES:
                    raise damaged(path, f"it has more than {ENTRIES:,} entries")
                file = tar.extractfile(member)
                if file is not None and is_wanted(member.name):
                    yield member.name, file.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as error:
        raise damaged(path, first_line(error)) from error


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    place = PurePosixPath(member.name)
    if place.is_absolute() or ".." in place.parts:
        raise damaged(path, f"{member.name} would lie outside of it")
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        raise damaged(path, f"{member.name} is neither a file nor a folder")
    if member.issparse():
        raise damaged(path, f"{member.name} is a sparse file")
    if not 0 <= member.size <= LARGEST:
        raise damaged(path, f"{member.name} unpacks to more than {LARGEST:,} bytes")


class _Limited(gzip.GzipFile):
    """Gzipped file that unpacks at most LARGEST bytes."""

    unpacked = 0

    def read(self, size: int | None = -1) -> bytes:
        """Reads up to `size` unpacked bytes.

        Raises:
          ValueError: more than LARGEST bytes were unpacked.
        """
        data = super().read(size)
        self.unpacked += len(data)
        if self.unpacked > LARGEST:
            raise ValueError(f"it unpacks to more than {LARGEST:,} bytes")
        return data


def cifar(data: bytes, label_bytes: int, origin: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads CIFAR's binary records.

    Args:
      data: records of `label_bytes` labels, followed by 3 planes of 32x32 pixels.
      label_bytes: number of labels of a record.
      origin: path of the archive, for error messages.

    Returns:
      Labels uint8 [N, label_bytes] and images uint8 [N, 32, 32, 3].

    Raises:
      UserError: the data are empty or end within a record.

    >>> labels, images = cifar(bytes(2 * 3073), 1, Path("train.bin"))
    >>> labels.shape, images.shape
    ((2, 1), (2, 32, 32, 3))
    """
    record = label_bytes + 3072
    if not data or len(data) % record:
        raise damaged(origin, f"{len(data)} bytes are not whole records of {record}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    planes = rows[:, label_bytes:].reshape(-1, 3, 32, 32)
    return rows[:, :label_bytes], planes.transpose(0, 2, 3, 1)


def damaged(path: Path, why: str) -> UserError:
    """Returns the error for an archive with unexpected content."""
    return UserError(f"{path} is damaged ({why}): delete it and prepare the data set again")
