"""The official archives, read with every length checked; of MNIST and CIFAR to arrays.

Shapes: N images; MNIST's are [N, 28, 28, 1], CIFAR's [N, 32, 32, 3], uint8.
"""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from jaxdl.errors import UserError, first_line

LARGEST = 1 << 30  # bytes unpacked; the real ones take a part of it
ENTRIES = 200_000  # of a tar; IMDB's has half as many


def idx(path: Path) -> np.ndarray:
    """Reads a gzipped IDX file of uint8 (LeCun et al., 1998): any number of dimensions.

    Raises:
      UserError: it is damaged, or not such a file.
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


def members(path: Path, names: list[str]) -> dict[str, bytes]:
    """Reads files of a gzipped tar into memory.

    Raises:
      UserError: as of `matching`, or it lacks one of the names.
    """
    found = dict(matching(path, names.__contains__))
    for name in names:
        if name not in found:
            raise damaged(path, f"{name} is not in it")
    return found


def matching(path: Path, wanted: Callable[[str], Any]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the files of a gzipped tar that are wanted; nothing is put on the disk.

    Raises:
      UserError: it is damaged, or is not what it should be: entries that are neither files nor
        folders, that lie outside of it, or that unpack to too much: sparse files, whose holes take
        no bytes of the archive, are refused.
    """
    try:
        with _Limited(path) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for number, member in enumerate(tar):
                _check_member(path, member)
                if number >= ENTRIES:
                    raise damaged(path, f"it has more than {ENTRIES:,} entries")
                file = tar.extractfile(member)
                if file is not None and wanted(member.name):
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
    """A gzipped file of which no more than LARGEST bytes are ever unpacked."""

    unpacked = 0

    def read(self, size: int | None = -1) -> bytes:
        """As of any file.

        Raises:
          ValueError: it goes on after LARGEST bytes.
        """
        data = super().read(size)
        self.unpacked += len(data)
        if self.unpacked > LARGEST:
            raise ValueError(f"it unpacks to more than {LARGEST:,} bytes")
        return data


def cifar(data: bytes, label_bytes: int, origin: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads CIFAR's binary records: `label_bytes` labels, then 3 planes of 32x32 pixels.

    Returns:
      Labels uint8 [N, label_bytes] and images uint8 [N, 32, 32, 3].
    """
    record = label_bytes + 3072
    if not data or len(data) % record:
        raise damaged(origin, f"{len(data)} bytes are not whole records of {record}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    planes = rows[:, label_bytes:].reshape(-1, 3, 32, 32)
    return rows[:, :label_bytes], planes.transpose(0, 2, 3, 1)


def damaged(path: Path, why: str) -> UserError:
    """Error for an archive that is not what it should be."""
    return UserError(f"{path} is damaged ({why}): delete it and prepare the data set again")
