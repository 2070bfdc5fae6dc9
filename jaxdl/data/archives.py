"""The official archives of MNIST and CIFAR: bytes to arrays, every length checked.

Shapes: N images; MNIST's are [N, 28, 28, 1], CIFAR's [N, 32, 32, 3], uint8.
"""

import gzip
import tarfile
import zlib
from pathlib import Path

import numpy as np

from jaxdl.errors import UserError

LARGEST = 1 << 28  # bytes unpacked: the largest real one has 153,620,000


def idx(path: Path) -> np.ndarray:
    """Reads a gzipped IDX file of uint8 (LeCun et al., 1998): any number of dimensions.

    Raises:
      UserError: it is damaged, or not such a file.
    """
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    if len(data) > LARGEST or len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise _damaged(path, "not an IDX file of bytes")
    header = 4 + 4 * data[3]
    shape = tuple(np.frombuffer(data[4:header], ">u4").tolist())
    if len(data) < header or len(data) - header != int(np.prod(shape, dtype=object)):
        raise _damaged(path, f"{len(data) - header} bytes where the header says {shape}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def members(path: Path, names: list[str]) -> dict[str, bytes]:
    """Reads files of a gzipped tar into memory; nothing is unpacked to disk.

    Raises:
      UserError: it is damaged, or lacks one of the names.
    """
    found = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for name in names:
                member = tar.getmember(name)
                file = tar.extractfile(member)
                if file is None or member.size > LARGEST:
                    raise _damaged(path, f"{name} is not a file of a plausible size")
                found[name] = file.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise _damaged(path, str(error)) from error
    except KeyError as error:
        raise _damaged(path, str(error).strip("\"'")) from error
    return found


def cifar(data: bytes, label_bytes: int, origin: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads CIFAR's binary records: `label_bytes` labels, then 3 planes of 32x32 pixels.

    Returns:
      Labels uint8 [N, label_bytes] and images uint8 [N, 32, 32, 3].
    """
    record = label_bytes + 3072
    if not data or len(data) % record:
        raise _damaged(origin, f"{len(data)} bytes are not whole records of {record}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    planes = rows[:, label_bytes:].reshape(-1, 3, 32, 32)
    return rows[:, :label_bytes], planes.transpose(0, 2, 3, 1)


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged ({why}): delete it and prepare the data set again")
