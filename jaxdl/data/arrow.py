"""Folders of parquet or Arrow files, such as those of Hugging Face's `save_to_disk`.

They are read by pyarrow alone: nothing is downloaded or executed, and no path in them is followed.

Shapes: N rows.
"""

import hashlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import files, memory
from jaxdl.data import pixels
from jaxdl.data.labels import split_labels
from jaxdl.data.npz import SPLITS
from jaxdl.data.readers import Opened
from jaxdl.data.records import Reader
from jaxdl.errors import UserError, first_line, importing, shortened

IMAGES = ("image", "img", "images")
LABELS = ("label", "labels", "target")
MOST_FILES = 20_000


def is_folder(folder: Path) -> bool:
    """Returns True if a folder has parquet or Arrow files, by split or not."""
    return bool(_files(folder))


def open_images(folder: Path) -> Opened:
    """Opens the images of a folder of parquet or Arrow files.

    A split is a folder, or the first word of a file's name, as in `data/train-00000.parquet`. All
    other files are training data. The column of images has encoded images, and that of labels has
    classes, numbers, or lists of 0 and 1.

    Args:
      folder: the folder.

    Raises:
      UserError: a file is damaged, or has no images or labels.
    """
    paths = _files(folder)
    if "train" not in paths:
        raise UserError(f"--dataset={folder} has no files of train, only of {', '.join(paths)}")
    tables = {split: ArrowImages(tuple(chosen)) for split, chosen in paths.items()}
    values = {split: table.column(LABELS) for split, table in tables.items()}
    labels, classes = split_labels(str(folder), values)
    readers: dict[str, Reader] = {}
    for split, chosen in paths.items():
        readers[split] = ArrowImages(tuple(chosen), labels[split])
    names = tables["train"].class_names()
    is_index = np.asarray(values["train"]).dtype.kind in "iu" and labels["train"].ndim == 1
    return Opened(
        folder.name,
        _fingerprint(folder, paths),
        f"folder {folder} of parquet or Arrow files",
        readers,
        classes or (names if is_index else ()),
    )


def _files(folder: Path) -> dict[str, list[Path]]:
    """Parquet and Arrow files by split, in the order of their names.

    Raises:
      OSError: a folder cannot be read.
    """
    found: dict[str, list[Path]] = {}
    places = [folder, *(path for path in sorted(folder.iterdir()) if path.is_dir())]
    for place in places:
        if place != folder and place.name.lower() not in (*SPLITS, "data"):
            continue
        for path in sorted(place.iterdir()):
            is_cache = path.name.startswith((".", "cache-", "indices-"))
            if path.suffix not in (".parquet", ".arrow") or is_cache:
                continue
            word = re.split(r"[^a-z]", path.name.lower())[0]
            split = SPLITS.get(place.name.lower()) or SPLITS.get(word, "train")
            found.setdefault(split, []).append(path)
    if sum(map(len, found.values())) > MOST_FILES:
        raise UserError(f"{folder} has more than {MOST_FILES:,} parquet files: join some")
    return {split: found[split] for split in dict.fromkeys(SPLITS.values()) if split in found}


class ArrowImages:
    """Reader of the images of parquet or Arrow files; each process opens its own."""

    def __init__(self, paths: tuple[Path, ...], labels: np.ndarray | None = None):
        self._paths, self._labels = paths, labels
        self._table: Any = None

    def __reduce__(self) -> Any:
        return ArrowImages, (self._paths, self._labels)

    def __len__(self) -> int:
        return int(self.table().num_rows)

    def labels(self) -> np.ndarray:
        """Labels of all images; see `records.Reader`."""
        assert self._labels is not None
        return self._labels

    def table(self) -> Any:
        """Opens the files, as a table of pyarrow.

        Raises:
          UserError: a file is damaged, or the files differ in their columns.
        """
        if self._table is None:
            self._table = open_table(self._paths)
        return self._table

    def column(self, names: tuple[str, ...]) -> Any:
        """Reads the column that has one of some names, [N] or [N, K].

        Raises:
          UserError: there is no such column, or it has empty cells or lists of other lengths.
        """
        name = self._name(names)
        column = self.table().column(name)
        if column.null_count:
            raise UserError(f"{self._paths[0]} has empty cells in {name!r}: fill or drop them")
        values = column.to_pylist()
        if values and isinstance(values[0], list):
            if len({len(value) for value in values}) != 1:
                raise UserError(
                    f"{self._paths[0]} has lists of other lengths in {name!r}: pad them"
                )
            return np.asarray(values)
        return np.asarray(values, object if isinstance(values[0], str) else None)

    def read(self, row: int) -> tuple[np.ndarray, Any]:
        """Decodes an image, uint8 [H, W, 3], and returns it with its label.

        Raises:
          UserError: the image is damaged, or is not in the file.
        """
        name = self._name(IMAGES)
        value = self.table().column(name)[row].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        where = f"{self._paths[0].parent}, row {row:,} of {name!r}"
        if not isinstance(data, bytes):
            raise UserError(f"{where} has no bytes of an image: save the images in the file")
        try:
            return pixels.read_file(io.BytesIO(data)), self.labels()[row]
        except Exception as error:  # decoders may raise any error on damaged bytes
            raise UserError(
                f"{where} is not an image that can be read ({first_line(error)}): fix or drop it"
            ) from error

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that Hugging Face's `datasets` wrote into the file, if there are."""
        metadata = (self.table().schema.metadata or {}).get(b"huggingface", b"{}")
        try:
            features = json.loads(metadata)["info"]["features"]
            names = features[self._name(LABELS)]["names"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return ()
        valid = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return tuple(name[:200] for name in names) if valid else ()

    def _name(self, names: tuple[str, ...]) -> str:
        """Name of the column that has one of some names.

        Raises:
          UserError: there is none.
        """
        columns = self.table().column_names
        found = [name for name in names if name in columns]
        if not found:
            raise UserError(
                f"{self._paths[0]} has the columns {shortened(', '.join(columns))}: name one of "
                f"them {names[0]}"
            )
        return found[0]


def open_table(paths: tuple[Path, ...]) -> Any:
    """Opens parquet or Arrow files as one table; Arrow files are mapped, not read.

    Args:
      paths: files of the same columns.

    Raises:
      UserError: pyarrow is not installed, or a file is damaged or larger than memory.
    """
    with importing("pyarrow"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    limit, size, tables = memory.installed() // 2, 0, []
    for path in paths:
        try:
            files.open_regular(path, follow=True).close()
            if path.suffix == ".parquet":
                with pq.ParquetFile(path) as file:
                    groups = range(file.metadata.num_row_groups)
                    size += sum(file.metadata.row_group(n).total_byte_size for n in groups)
                    if size > limit:
                        raise ValueError(f"its rows take {size / 2**30:,.1f} GiB")
                    tables.append(file.read())
            else:
                tables.append(_ipc(pa, path))
        except Exception as error:  # pyarrow raises many errors on damaged bytes
            raise UserError(f"cannot read {path} ({first_line(error)}): write it again") from error
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise UserError(
            f"{paths[0]} and {paths[-1]} differ in their columns ({first_line(error)}): write them "
            "again"
        ) from error


def _ipc(pa: Any, path: Path) -> Any:
    """Maps a file of Arrow's stream or file format."""
    try:
        return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _fingerprint(folder: Path, paths: dict[str, list[Path]]) -> str:
    """SHA-256 over the splits, relative paths and bytes of all files."""
    sha = hashlib.sha256()
    for split, names in paths.items():
        for path in names:
            sha.update(split.encode() + os.fsencode(path.relative_to(folder)))
            sha.update(files.sha256(path).digest())
    return sha.hexdigest()
