"""Image folders with a file of labels: classes, several classes at once, or numbers.

Shapes: N images, K classes.
"""

import csv
import hashlib
import io
import os
from pathlib import Path, PurePosixPath

import numpy as np

from jaxdl import files, memory
from jaxdl.data.folder import ImageFiles, unreadable
from jaxdl.data.labels import split_labels
from jaxdl.data.npz import SPLITS
from jaxdl.data.readers import Opened
from jaxdl.data.records import Reader
from jaxdl.errors import UserError, first_line, shortened

NAME = "labels.csv"
KINDS = ("label", "labels", "number")  # columns of classes, several classes, numbers
SEPARATOR = "|"


def open_images(folder: Path) -> Opened:
    """Opens a folder whose images have their labels in `labels.csv`.

    The file has a header. The column `file` is a path below the folder. One other column has the
    label: `label`, a class; `labels`, any number of classes, separated by `|`; or `number`. Images
    are in the split that the column `split` names, or else that the first part of their paths
    names, if all do, as in `train/1.jpg`. Otherwise all are training images.

    Args:
      folder: the folder.

    Returns:
      The images; classes are numbered in the order of their UTF-8 bytes.

    Raises:
      UserError: the file is not valid, has an image twice, or a path leads out of the folder.
    """
    content, rows, kind = _rows(folder / NAME)
    paths = [_path(folder, number, row["file"]) for number, row in enumerate(rows, 2)]
    _check_once(folder / NAME, paths)
    parts = _splits(folder, rows, paths)
    classes: tuple[str, ...] = ()
    values = [row[kind].strip() for row in rows]
    if kind == "labels":
        labels, classes = _several(folder / NAME, values)
    elif kind == "number":
        labels = np.array([_number(folder / NAME, n, value) for n, value in enumerate(values, 2)])
    else:
        labels = np.array(values, object)
    by_split = {split: np.flatnonzero(parts == split) for split in dict.fromkeys(SPLITS.values())}
    by_split = {split: chosen for split, chosen in by_split.items() if len(chosen)}
    if "train" not in by_split:
        raise UserError(f"{folder / NAME} has no image of train: give some")
    encoded, names = split_labels(
        str(folder / NAME), {split: labels[chosen] for split, chosen in by_split.items()}
    )
    readers: dict[str, Reader] = {
        split: ImageFiles([folder / paths[row] for row in chosen], encoded[split])
        for split, chosen in by_split.items()
    }
    source = f"folder {folder}, labelled by {NAME}"
    digest = _fingerprint(folder, content, paths)
    return Opened(folder.name, digest, source, readers, classes or names)


def _rows(path: Path) -> tuple[bytes, list[dict[str, str]], str]:
    """Reads the file: its bytes, its rows by column, and the name of the column of labels.

    Raises:
      UserError: it is not UTF-8, or lacks a column or a value.
    """
    try:
        content = files.read_bytes(path, memory.installed() // 32, follow=True)
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it has a NUL byte")
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = list(table.fieldnames or ())
        kinds = [name for name in KINDS if name in header]
        if len(kinds) != 1 or "file" not in header or len(set(header)) < len(header):
            raise ValueError(
                f"its columns are {shortened(', '.join(header))}, give file and one of "
                f"{', '.join(KINDS)}"
            )
        rows: list[dict[str, str]] = []
        for row in table:
            if None in row or None in row.values():
                raise ValueError(f"line {table.line_num:,} has not {len(header)} values")
            if kinds[0] != "labels" and not row[kinds[0]].strip():
                raise ValueError(f"line {table.line_num:,} has no {kinds[0]}")
            rows.append(row)
    except OSError as error:
        raise unreadable(error) from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is not valid ({first_line(error)}): correct it") from error
    if not rows:
        raise UserError(f"{path} has no images: give a line for each")
    return content, rows, kinds[0]


def _path(folder: Path, number: int, value: str) -> PurePosixPath:
    """Relative path of an image.

    Raises:
      UserError: the path leads out of the folder.
    """
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts or "\0" in value:
        raise UserError(
            f"{folder / NAME}, row {number:,}: the file {shortened(value)!r} is not below the "
            "folder: give a relative path"
        )
    return path


def _check_once(path: Path, paths: list[PurePosixPath]) -> None:
    """Checks that no image has two rows, which may differ in their classes or splits.

    Raises:
      UserError: one has.
    """
    first: dict[PurePosixPath, int] = {}
    for number, image in enumerate(paths, 2):
        if first.setdefault(image, number) != number:
            raise UserError(
                f"{path}, row {number:,}: {shortened(image)} is in row {first[image]:,} already: "
                f"delete one of them (a column `labels` takes several classes: a{SEPARATOR}b)"
            )


def _splits(folder: Path, rows: list[dict[str, str]], paths: list[PurePosixPath]) -> np.ndarray:
    """Split of each image [N].

    Raises:
      UserError: a split has an unknown name.
    """
    if "split" in rows[0]:
        names = [row["split"].strip().lower() for row in rows]
        unknown = sorted(set(names) - set(SPLITS))
        if unknown:
            raise UserError(
                f"{folder / NAME} has the split {shortened(unknown[0])!r}: give train, validation "
                "or test"
            )
    else:
        names = [path.parts[0].lower() for path in paths]
        if not set(names) <= set(SPLITS):
            return np.full(len(rows), "train")
    return np.array([SPLITS[name] for name in names])


def _number(path: Path, number: int, value: str) -> float:
    """Parses a label that is a number, which may be NaN: `ImageFiles` refuses it.

    Raises:
      UserError: it is no number.
    """
    try:
        return float(value)
    except ValueError:
        raise UserError(
            f"{path}, row {number:,}: the number {shortened(value)!r} is none: correct it"
        ) from None


def _several(path: Path, values: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Several classes at once: float32 [N, K] of 0 and 1, and the names of the classes.

    Raises:
      UserError: there is no class, or the labels do not fit into memory.
    """
    names = [[name.strip() for name in value.split(SEPARATOR) if name.strip()] for value in values]
    classes = sorted({name for row in names for name in row})
    if not classes:
        raise UserError(f"{path} has no class in any row: give some, as in cat{SEPARATOR}outdoor")
    if 4 * len(names) * len(classes) > memory.installed() // 4:
        raise UserError(
            f"{path} has {len(names):,} images of {len(classes):,} classes, more than fit into "
            "memory: give fewer classes"
        )
    index = {name: number for number, name in enumerate(classes)}
    labels = np.zeros((len(names), len(classes)), np.float32)
    for row, present in enumerate(names):
        labels[row, [index[name] for name in present]] = 1
    return labels, tuple(classes)


def _fingerprint(folder: Path, content: bytes, paths: list[PurePosixPath]) -> str:
    """SHA-256 over the labels, and the paths and bytes of all images; a missing one has none."""
    sha = hashlib.sha256(content)
    for path in paths:
        sha.update(os.fsencode(str(path)))
        try:
            if (folder / path).is_dir():  # refused or left out like a missing file
                raise FileNotFoundError
            sha.update(files.sha256(folder / path).digest())
        except FileNotFoundError:
            sha.update(b"missing")
        except OSError as error:
            raise unreadable(error) from error
    return sha.hexdigest()
