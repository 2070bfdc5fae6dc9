"""Prepared TFDS folders, found by name and read; nothing in one of them is imported.

TFDS's own code tells the place and the features of its stock data sets, and never sees a folder:
its JSON files are read by `layout`, its records are decoded here.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdl import files
from jaxdl.console import track
from jaxdl.data import layout as layouts
from jaxdl.data import pixels, tfds
from jaxdl.data.layout import Layout
from jaxdl.errors import UserError, first_line, importing, shortened

AT_A_TIME = 1000  # records that are held against their checksums
# As TFDS has it, and with the version as a folder: mnist/3.0.1. Nothing in it leaves the folder.
NAME = re.compile(
    r"([A-Za-z]\w{0,98})(?:/(?!\d+\.\d+\.\d+$)([\w+-][\w.+-]{0,98}))?"
    r"(?:[:/]((?:\d{1,9}|\*)(?:\.(?:\d{1,9}|\*)){2}))?",
    re.ASCII,
)
LABELS = "label.labels.txt"  # one name a line
REMEDY = "delete that folder and prepare it again, or name another --data_dir or --dataset"


@dataclasses.dataclass(frozen=True)
class Stored:
    """A data set of TFDS in a folder, whether it is there yet or not."""

    folder: Path
    layout: Layout | None  # None: it is not there

    def is_prepared(self) -> bool:
        """True if the folder holds the data set."""
        return self.layout is not None

    @property
    def info(self) -> Layout:
        """The layout of a prepared folder."""
        assert self.layout is not None, "prepare.opened prepares it"
        return self.layout

    @property
    def version(self) -> str:
        """Three numbers."""
        return self.info.version

    @property
    def slug(self) -> str:
        """Its name, config and version as one word."""
        return self.info.full_name.replace("/", "-")

    @property
    def num_classes(self) -> int:
        """Number of classes of its label."""
        return self.info.num_classes

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, where the folder has one for each; else none."""
        try:
            text = files.read_bytes(self.folder / LABELS, layouts.LIMIT, follow=True).decode()
        except (OSError, UnicodeDecodeError):
            return ()
        names = tuple(text.removesuffix("\n").split("\n"))
        return names if len(names) == self.num_classes else ()

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of the folder's files."""
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
        """The splits to train, to test and, if there is one beside these, to validate on."""
        splits = self.info.shards
        others = [name for name in ("test", "validation") if name in splits]
        if "train" in splits and others:
            return ("train", *others)
        raise UserError(
            f"{self.slug} has the splits {', '.join(splits)}: this needs train and test (or "
            "validation); choose another --dataset"
        )

    def count(self, split: str) -> int:
        """Number of examples that the folder says a split has."""
        return sum(count for _, count in self._shards(split))

    def check(self, split: str) -> None:
        """Reads a split's records without decoding them: each is held against its checksum.

        Raises:
          UserError: a record is damaged, or there are more or fewer than the folder says.
        """
        with self.reading():
            for reader, count in self._readers(split):
                for start in range(0, count, AT_A_TIME):
                    reader.read(list(range(start, min(start + AT_A_TIME, count))))

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        """Decodes the examples of a split one by one, within `reading`."""
        source = self.open(split)
        for row in track(range(self.count(split)), f"decoding {self.slug} {split}"):
            yield source[row]

    def labels(self, split: str) -> np.ndarray:
        """The labels of a split, int32 [N]; no image is decoded.

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
        """The decoded examples of a split by row, to be used within `reading`."""
        return Examples(self.info, self._shards(split))

    def source(self, split: str) -> "Source":
        """A split's images and labels, to be read one by one.

        Raises:
          UserError: there are more or fewer records than the folder says, or none.
        """
        with self.reading():
            for _ in self._readers(split):
                pass
        return Source(self, split)

    def label(self, example: dict[str, Any]) -> int:
        """The label of an example, which is that of a class, within `reading`."""
        label = int(example["label"])
        if not 0 <= label < self.num_classes:
            raise self._damaged("label out of range")
        return label

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Around all that reads: its errors are a UserError that names the folder.

        The readers and decoders raise whatever a damaged byte leads them to.
        """
        try:
            yield
        except UserError:
            raise
        except MemoryError as error:  # no fault of the folder
            raise UserError(f"the memory cannot hold what {self.folder} has: free some") from error
        except Exception as error:
            raise self._damaged(first_line(error)) from error

    def _readers(self, split: str) -> Iterator[tuple[Any, int]]:
        """A reader of each of a split's files, and the number of records that it holds."""
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
        return _damaged(self.folder, why)


class Examples:
    """The examples of a split by row: `image` decoded, `label` a number, `text` bytes.

    An image comes as TFDS's own decoder gives it, in 8 bits and the channels that the folder says.
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
    """array_record's instruction to read a file: all of its records."""

    filename: str
    take: int
    examples_in_shard: int
    skip: int = 0


class Source:
    """A split's images and labels; each process opens its files for itself."""

    def __init__(self, stored: Stored, split: str):
        self._stored, self._split = stored, split
        self._opened: Examples | None = None

    def __len__(self) -> int:
        return self._stored.count(self._split)

    def labels(self) -> np.ndarray:
        """The labels of all, int32 [N], as of `Stored.labels`."""
        return self._stored.labels(self._split)

    def read(self, row: int) -> tuple[np.ndarray, int]:
        """Decodes an image, uint8 [H, W, C], and its label.

        Raises:
          UserError: the files are damaged.
        """
        with self._stored.reading():
            if self._opened is None:
                self._opened = self._stored.open(self._split)
            example = self._opened[row]
            return example["image"], self._stored.label(example)

    def __reduce__(self) -> Any:
        return Source, (self._stored, self._split)


def open_dataset(name: str, data_dir: str, features: tuple[str, ...]) -> Stored:
    """Finds a data set of TFDS by name; instant, and without network.

    Args:
      name: as TFDS has it: `mnist`, `imagenet_resized/32x32`, `mnist:3.0.1`, `mnist:3.*.*`; or
        with the version as its folder has it, `mnist/3.0.1`.
      data_dir: TFDS folder; empty: TFDS's own.
      features: what an example of it must have.

    Raises:
      UserError: there is no data set of that name, or it lacks one of the features, or its folder
        is not as TFDS writes it.
    """
    base, config, version = parsed(name)
    above = tfds.folder(data_dir) / base
    stock = tfds.stock(base, config, version)
    try:
        place = above.parent / stock.place if stock else _find(above, config, version)
        if place is None:
            raise _no_version(name, above, config) if above.is_dir() else _unknown(name)
        layout = None if stock and not place.exists() else layouts.read(place)
    except OSError as error:
        raise _damaged(above, f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise _damaged(above, first_line(error)) from error
    available = layout.features if layout else stock.features() if stock else []
    if not set(features) <= set(available):
        raise UserError(
            f"--dataset={name} has no {' and '.join(features)} (features: "
            f"{', '.join(available)}): choose one that has"
        )
    if layout is not None:
        _check_kinds(place, layout, features)
    return Stored(place, layout)


def parsed(name: str) -> tuple[str, str | None, str | None]:
    """The data set, config and version of a name as of `open_dataset`.

    Raises:
      UserError: there is no data set of such a name.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise _unknown(name)
    base, config, version = match.groups()
    return base, config, version


def _find(above: Path, config: str | None, version: str | None) -> Path | None:
    config = config or layouts.default_config(above)
    return layouts.find(above / config, version)


def _check_kinds(place: Path, layout: Layout, features: tuple[str, ...]) -> None:
    if "image" in features and not layout.channels:
        raise _damaged(place, "the images are not of 8 bits and 1 or 3 channels")
    if "label" in features and not layout.num_classes:
        raise _damaged(place, "the label is not that of a class")


def _no_version(name: str, above: Path, config: str | None) -> UserError:
    if config and (above / config).is_dir():
        above /= config
    others = sorted(path.name for path in above.iterdir() if not path.name.startswith("."))
    has = shortened(", ".join(others)) or "nothing"
    return UserError(
        f"--dataset={name}: {above} holds no such version ({has}): name one that it holds, or "
        "prepare that one with tensorflow_datasets (file_format='array_record')"
    )


def _unknown(name: str) -> UserError:
    return UserError(
        f"--dataset={name}: no such data set (the names are at tensorflow.org/datasets; "
        "--dataset=embedded needs no download; a folder begins with / or ./)"
    )


def _damaged(folder: Path, why: str) -> UserError:
    return UserError(f"{folder} is damaged ({why}): {REMEDY}")


def _check_regular(path: Path) -> None:
    """Refuses what the reader of records would wait for."""
    files.open_regular(path, follow=True).close()
