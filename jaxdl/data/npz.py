"""Arrays of a .npz file, which is not trusted: nothing is unpickled, and sizes are checked first.

Shapes: N images of H by W pixels with C channels, K classes.
"""

import hashlib
import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxdl import files, memory
from jaxdl.data.labels import split_labels
from jaxdl.data.readers import ArrayReader, Opened
from jaxdl.errors import UserError, first_line, shortened

INPUTS = ("image", "images", "x", "data")
LABELS = ("label", "labels", "y", "target", "targets")
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
MOST_ARRAYS = 1000
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def open_images(path: Path) -> Opened:
    """Opens the images and labels of a .npz file.

    The arrays are called `image` or `x`, and `label` or `y`, alone or with the name of a split, as
    in `x_train`, `y_train`, `x_test`, `y_test` of Keras, or `train_images`, `train_labels` and
    `val_images` of MedMNIST.

    Args:
      path: path of the file.

    Returns:
      The images: [N, H, W], [N, H, W, C] or [N, C, H, W] with C of 1 or 3, integers from 0 to 255
      or floats from 0 to 1. See `labels.encode_labels` for labels.

    Raises:
      UserError: the file is damaged, or has no such arrays.
    """
    arrays, digest = read(path)
    found, unused = _by_split(path, arrays)
    labels, classes = split_labels(
        str(path), {split: part["label"] for split, part in found.items()}
    )
    readers = {}
    for split in sorted(found, key=("train", "validation", "test").index):
        images = found[split]["image"]
        if len(images) != len(labels[split]) or not len(images):
            raise UserError(
                f"{path} has {len(images):,} images and {len(labels[split]):,} labels of {split}: "
                "give one label for each image"
            )
        readers[split] = ArrayReader(f"{path} ({split})", images, labels[split])
    notice = f"{path}: unused arrays: {shortened(', '.join(unused), 200)}" if unused else ""
    return Opened(path.name, digest, f"file {path}", dict(readers), classes, notice)


def read(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Reads all arrays of a .npz file.

    Args:
      path: path of the file.

    Returns:
      The arrays by name, and the SHA-256 of their names, types, shapes and bytes.

    Raises:
      UserError: the file cannot be read, is no .npz, is damaged, has objects, or its arrays take
        more than half of the machine's memory.
    """
    try:
        with files.open_regular(path, follow=True) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            names = [member.filename.removesuffix(".npy") for member in members]
            size, limit = sum(member.file_size for member in members), memory.installed() // 2
            if size > limit:
                raise ValueError(
                    f"its arrays take {size / 2**30:,.1f} GiB, more than half of the memory"
                )
            if len(members) > MOST_ARRAYS or len(set(names)) < len(members):
                raise ValueError("it has the same name twice, or too many arrays")
            arrays = {}
            for name, member in zip(names, members, strict=True):
                with archive.open(member) as stream:
                    arrays[name] = _array(name, stream, member.file_size)
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror or first_line(error)}): give a .npz file"
        ) from error
    except Exception as error:  # zipfile, zlib and NumPy raise any error on damaged bytes
        raise UserError(
            f"{path} is not a .npz file that can be read ({first_line(error)}): write it again by "
            "numpy.savez"
        ) from error
    sha = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha.update(f"{name} {array.dtype} {array.shape}\n".encode("utf-8", "surrogatepass"))
        sha.update(np.ascontiguousarray(array).tobytes())
    return arrays, sha.hexdigest()


def _array(name: str, stream: IO[bytes], size: int) -> np.ndarray:
    """Reads an array of the .npy format, whose header must match the number of bytes.

    Raises:
      ValueError: it does not, or the array has objects or fields.
    """
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"array {shortened(name)!r} has fields")
    shape, fortran, dtype = HEADERS[version](stream, max_header_size=10_000)
    if dtype.hasobject or dtype.names:
        raise ValueError(f"array {shortened(name)!r} holds objects, which are not read")
    needed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or needed != size - stream.tell():
        raise ValueError(f"array {shortened(name)!r} is truncated or longer than its shape")
    data = stream.read(needed)  # verifies the checksum of the archive at its end
    if stream.read(1) or len(data) != needed:
        raise ValueError(f"array {shortened(name)!r} is truncated")
    array = np.frombuffer(data, dtype) if needed else np.empty(math.prod(shape), dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _by_split(
    path: Path, arrays: dict[str, np.ndarray]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Images and labels by split, and the names of other arrays.

    Raises:
      UserError: there are no images or no labels of training, or two of one kind.
    """
    found: dict[str, dict[str, Any]] = {}
    unused = []
    for name, array in arrays.items():
        words = name.lower().split("_")
        kinds = [word for word in words if word in (*INPUTS, *LABELS)]
        splits = [SPLITS[word] for word in words if word in SPLITS]
        if len(kinds) != 1 or len(splits) > 1 or len(kinds) + len(splits) != len(words):
            unused.append(name)
            continue
        kind = "image" if kinds[0] in INPUTS else "label"
        part = found.setdefault((splits or ["train"])[0], {})
        if kind in part:
            raise UserError(f"{path} has two arrays for {kind} of {name!r}: rename one of them")
        part[kind] = array
    if "train" not in found or any(len(part) != 2 for part in found.values()):
        raise UserError(
            f"{path} has the arrays {shortened(', '.join(arrays) or 'none')}: give image and "
            "label, or x_train, y_train and, if there are any, x_test, y_test, x_val, y_val"
        )
    return found, unused
