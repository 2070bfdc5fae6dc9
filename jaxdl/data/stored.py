"""Reader of prepared TFDS folders; nothing in a folder is imported.

TFDS's own code never reads a folder: `layout` reads the JSON files, and the records are decoded
here.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdl import files
from jaxdl.console import track
from jaxdl.data import layout as layouts
from jaxdl.data import pixels, tfds
from jaxdl.data.layout import Layout
from jaxdl.errors import UserError, first_line, importing

AT_A_TIME = 1000  # records that are read at once
LABELS = "label.labels.txt"  # one class name a line
REMEDY = "delete that folder and prepare it again, or name another --data_dir or --dataset"


@dataclasses.dataclass(frozen=True)
class PreparedDataset:
    """Data set of TFDS in a folder, prepared or not.

    Attributes:
      folder: folder of the version, DATA_DIR/name/config/version.
      layout: content of its JSON files; None if the data set is not prepared.
    """

    folder: Path
    layout: Layout | None

    def is_prepared(self) -> bool:
        """Returns True if the folder holds the data set."""
        return self.layout is not None

    @property
    def info(self) -> Layout:
        """Layout of a prepared folder."""
        assert self.layout is not None, "prepare.open_or_prepare prepares it"
        return self.layout

    @property
    def version(self) -> str:
        """Version, three numbers."""
        return self.info.version

    @property
    def slug(self) -> str:
        """Name, config and version, joined by hyphens."""
        return self.info.full_name.replace("/", "-")

    @property
    def num_classes(self) -> int:
        """Number of classes of the label."""
        return self.info.num_classes

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty unless the folder has one for each class."""
        try:
            text = files.read_bytes(self.folder / LABELS, layouts.LIMIT, follow=True).decode()
        except (OSError, UnicodeDecodeError):
            return ()
        names = tuple(text.removesuffix("\n").split("\n"))
        return names if len(names) == self.num_classes else ()

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of the folder's files.

        Raises:
          UserError: a file cannot be read.
        """
        sha = hashlib.sha256()
        try:
            for path in sorted(path for path in self.folder.iterdir() if path.is_file()):
                sha.update(os.fsencode(path.name))
                sha.update(files.sha256(path).digest())
        except OSError as error:
            text = f"cannot read {error.filename} ({error.strerror}): {REMEDY}"
            raise UserError(text) from error
        return sha.hexdigest()

    def used_splits(self) -> tuple[str, ...]:
        """Names of the training, the test and, if there are three, the validation split.

        A folder without a test split is tested on its validation split.

        Raises:
          UserError: the training split is absent, or both of the others are.
        """
        splits = self.info.shards
        evaluation_splits = [name for name in ("test", "validation") if name in splits]
        if "train" in splits and evaluation_splits:
            return ("train", *evaluation_splits)
        raise UserError(
            f"{self.slug} has the splits {', '.join(splits)}: this needs train and test (or "
            "validation); choose another --dataset"
        )

    def count(self, split: str) -> int:
        """Number of examples of a split, according to the folder's layout."""
        return sum(count for _, count in self._shards(split))

    def check(self, split: str) -> None:
        """Reads a split's records without decoding them, which verifies their checksums.

        Raises:
          UserError: a record is damaged, or the number of records differs from the layout's.
        """
        with self.reading():
            for reader, count in self._readers(split):
                for start in range(0, count, AT_A_TIME):
                    reader.read(list(range(start, min(start + AT_A_TIME, count))))

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        """Decodes the examples of a split one by one, to be used within `reading`."""
        examples = self.open(split)
        for row in track(range(self.count(split)), f"decoding {self.slug} {split}"):
            yield examples[row]

    def labels(self, split: str) -> np.ndarray:
        """Reads the labels of a split, int32 [N], without decoding images.

        Raises:
          UserError: a record is damaged.
        """
        labels = []
        with self.reading():
            parse = tfds.parser()
            for reader, count in self._readers(split):
                for start in range(0, count, AT_A_TIME):
                    for record in reader.read(list(range(start, min(start + AT_A_TIME, count)))):
                        (label,) = parse(record).features.feature["label"].int64_list.value
                        labels.append(self.label({"label": label}))
        return np.asarray(labels, np.int32)

    def open(self, split: str) -> "Examples":
        """Opens a split for random access to decoded examples, to be used within `reading`."""
        return Examples(self.info, self._shards(split))

    def source(self, split: str) -> "StoredImages":
        """Opens a split as a source of images and labels.

        Raises:
          UserError: the split is empty, or the number of records differs from the layout's.
        """
        with self.reading():
            for _ in self._readers(split):
                pass
        return StoredImages(self, split)

    def label(self, example: dict[str, Any]) -> int:
        """Returns the label of an example, checked against the number of classes.

        Raises:
          UserError: the label is out of range.
        """
        label = int(example["label"])
        if not 0 <= label < self.num_classes:
            raise self._damaged("label out of range")
        return label

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Context for reading the folder: every error becomes a UserError that names the folder.

        Readers and decoders may raise any error on damaged bytes.
        """
        try:
            yield
        except UserError:
            raise
        except MemoryError as error:  # the folder is not damaged
            raise UserError(f"{self.folder} does not fit into memory: free some memory") from error
        except Exception as error:
            raise self._damaged(first_line(error)) from error

    def _readers(self, split: str) -> Iterator[tuple[Any, int]]:
        """Yields a reader of each of a split's files, and its number of records."""
        with importing("array-record"):
            from array_record.python.array_record_module import ArrayRecordReader

        for path, count in self._shards(split):
            _check_regular(path)
            reader = ArrayRecordReader(str(path))
            if reader.num_records() != count:
                raise self._damaged(f"{path.name} has {reader.num_records()} examples, not {count}")
            yield reader, count
            reader.close()
        if not self.count(split):
            raise self._damaged(f"no {split} examples")

    def _shards(self, split: str) -> list[tuple[Path, int]]:
        if split not in self.info.shards:
            raise self._damaged(f"it has no split {split}")
        return self.info.shards[split]

    def _damaged(self, why: str) -> UserError:
        return damaged(self.folder, why)


class Examples:
    """Decoded examples of a split by row: `image` an array, `label` an integer, `text` bytes.

    Images equal those of TFDS's own decoder, uint8 with the layout's channels.
    """

    def __init__(self, layout: Layout, shards: list[tuple[Path, int]]):
        with importing("array-record"):
            from array_record.python.array_record_data_source import ArrayRecordDataSource

        for path, _ in shards:
            _check_regular(path)
        self._parse = tfds.parser()
        self._names = set(layout.features) & {"image", "label", "text"}
        self._channels = layout.channels
        self._records = ArrayRecordDataSource([_Shard(str(p), n, n) for p, n in shards if n])

    def __getitem__(self, row: int) -> dict[str, Any]:
        fields = self._parse(self._records[row]).features.feature
        example: dict[str, Any] = {}
        for name in self._names:
            values = fields[name].int64_list if name == "label" else fields[name].bytes_list
            (example[name],) = values.value
        if self._channels:
            example["image"] = pixels.decode(example["image"], self._channels)
        return example


class _Shard(NamedTuple):
    """File instruction of array_record: read all records of a file."""

    filename: str
    take: int
    examples_in_shard: int
    skip: int = 0


class StoredImages:
    """Reader of a split's images and labels; each process opens its own files."""

    def __init__(self, stored: PreparedDataset, split: str):
        self._stored, self._split = stored, split
        self._examples: Examples | None = None

    def __len__(self) -> int:
        return self._stored.count(self._split)

    def labels(self) -> np.ndarray:
        """Labels of all images, int32 [N]; see `PreparedDataset.labels`."""
        return self._stored.labels(self._split)

    def read(self, row: int) -> tuple[np.ndarray, int]:
        """Decodes an image, uint8 [H, W, C], and returns it with its label.

        Raises:
          UserError: the files are damaged.
        """
        with self._stored.reading():
            if self._examples is None:
                self._examples = self._stored.open(self._split)
            example = self._examples[row]
            return example["image"], self._stored.label(example)

    def __reduce__(self) -> Any:
        return StoredImages, (self._stored, self._split)


def damaged(folder: Path, why: str) -> UserError:
    """Returns the error for a folder that is not as TFDS writes it."""
    return UserError(f"{folder} is damaged ({why}): {REMEDY}")


def _check_regular(path: Path) -> None:
    """Refuses special files, such as pipes, on which the record reader would block."""
    files.open_regular(path, follow=True).close()
