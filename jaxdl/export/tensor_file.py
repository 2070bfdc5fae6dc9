"""Files of named arrays in the safetensors format, which holds numbers and no code."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxdl import files
from jaxdl.errors import UserError, first_line, importing

LARGEST = 1 << 35  # bytes of a file
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")


def read(path: Path, largest: int = LARGEST) -> dict[str, np.ndarray]:
    """Reads all arrays of a safetensors file, which may be a stranger's.

    Args:
      path: path of the file; links are followed.
      largest: greatest size of the file in bytes.

    Returns:
      The arrays by name. Names are any text: no path may be made of them.

    Raises:
      UserError: the file cannot be read, is larger, damaged or not a safetensors file, or has an
        array of a type other than DTYPES.
    """
    try:
        with files.open_regular(path, follow=True) as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): name a file of weights") from error
    if size > largest:
        raise UserError(f"{path} has {size:,} bytes, and {largest:,} are the limit: give fewer")
    with importing("safetensors"):
        from safetensors import safe_open
    arrays = {}
    try:
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118
                dtype = file.get_slice(name).get_dtype()
                if dtype not in DTYPES:
                    raise ValueError(f"an array of type {dtype}")
                arrays[name] = file.get_tensor(name)
    except Exception as error:  # a damaged file may cause any
        raise UserError(
            f"{path} is not a whole safetensors file ({first_line(error)}): write it again, in "
            "PyTorch by safetensors.torch.save_file"
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
    with importing("safetensors"):
        from safetensors import numpy
    content = numpy.save({name: np.asarray(a, order="C") for name, a in arrays.items()}, metadata)
    with files.replacing(path) as file:
        file.write(content)
