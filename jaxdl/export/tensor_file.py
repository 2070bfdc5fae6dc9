"""Files of named arrays in the safetensors format, which holds numbers and no code.

A file is eight bytes with the size of a header, the header, which is JSON, and the arrays.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdl import files, memory
from jaxdl.errors import UserError, first_line, importing, shortened

LARGEST = 1 << 35  # bytes of a file
LARGEST_HEADER = 1 << 24  # bytes; some thousand arrays take a megabyte
MOST_ARRAYS = 100_000
LONGEST_NAME = 1000  # characters
DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read(path: Path, largest: int = LARGEST) -> dict[str, np.ndarray]:
    """Reads all arrays of a safetensors file, which may be a stranger's.

    Args:
      path: path of a regular file; a symbolic link is refused.
      largest: greatest size of the file in bytes. It is also limited by this machine's memory.

    Returns:
      The arrays by name. Names are any printable text: make no path of them.

    Raises:
      UserError: the file cannot be read, is larger, damaged or not a safetensors file, has a name
        twice, or an array of a type other than DTYPES.
    """
    try:
        content = files.read_bytes(path, min(largest, memory.installed() // 4))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): name a regular file of weights"
        ) from error
    return loads(content, str(path))


def loads(content: bytes, name: str) -> dict[str, np.ndarray]:
    """Parses the content of a safetensors file, see `read`.

    Args:
      content: bytes of the file.
      name: name of the file, for the message.

    Raises:
      UserError: as in `read`.
    """
    with importing("safetensors"):
        from safetensors import deserialize
    try:
        _check_header(content)
        arrays = {}
        for key, tensor in deserialize(content):  # checks that the arrays fill the file exactly
            array = np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]])
            arrays[key] = array.reshape(tensor["shape"])
    except Exception as error:  # a damaged file may cause any
        raise UserError(
            f"{name} is not a whole safetensors file ({first_line(error)}): write it again"
        ) from error
    return arrays


def write(path: Path, arrays: Mapping[str, np.ndarray], **metadata: str) -> None:
    """Writes arrays to a safetensors file, atomically.

    Args:
      path: path of the file.
      arrays: arrays by name.
      **metadata: text in the file's header.

    Raises:
      OSError: the file cannot be written.
    """
    with files.replacing(path) as file:
        file.write(dumps(arrays, **metadata))


def dumps(arrays: Mapping[str, Any], **metadata: str) -> bytes:
    """Content of a safetensors file with these arrays, in the order of their names."""
    with importing("safetensors"):
        from safetensors import numpy
    ordered = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    content: bytes = numpy.save(ordered, metadata or None)
    return content


def _check_header(content: bytes) -> None:
    """Checks the size, the names and the types of a file's header.

    The library accepts a name twice and keeps one of the two, and reads types that NumPy lacks.

    Raises:
      ValueError: one of them is not as it should be.
    """
    size = int.from_bytes(content[:8], "little")
    if size > min(LARGEST_HEADER, len(content) - 8):
        raise ValueError(f"its header would have {size:,} bytes")
    header = json.loads(content[8 : 8 + size], object_pairs_hook=_without_duplicates)
    if not isinstance(header, dict) or len(header) > MOST_ARRAYS:
        raise ValueError(f"its header is not an object of at most {MOST_ARRAYS:,} arrays")
    for name, entry in header.items():
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise ValueError(f"the name {shortened(ascii(name))}")
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        if name != "__metadata__" and dtype not in DTYPES:
            raise ValueError(f"{shortened(name)} has the type {shortened(dtype)}")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise ValueError(f"the name {shortened(ascii(name))} twice")
        names.add(name)
    return dict(pairs)
