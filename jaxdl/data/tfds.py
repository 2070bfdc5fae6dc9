"""TFDS folders, read and written without TensorFlow; the one module that imports it."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.errors import UserError, first_line
from jaxdl.progress import track

REMEDY = "delete that folder and prepare it again, or name another --data_dir or --dataset"


class Stored:
    """A data set of TFDS in a folder, whether it is there yet or not."""

    def __init__(self, builder: Any, place: tuple[str, str]):
        """Of TFDS's builder; `place` is its name and --data_dir."""
        self._builder, self.place = builder, place
        self.folder = Path(builder.data_path)
        self.version = str(builder.version)
        self.slug = builder.info.full_name.replace("/", "-")

    def is_prepared(self) -> bool:
        """Whether the folder holds the data set (in a format that needs no TensorFlow)."""
        return self._builder.is_prepared()

    @functools.cached_property
    def num_classes(self) -> int:
        """Number of classes of its label."""
        return self._builder.info.features["label"].num_classes

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of the folder's files."""
        sha = hashlib.sha256()
        try:
            for path in sorted(path for path in self.folder.iterdir() if path.is_file()):
                sha.update(path.name.encode())
                with path.open("rb") as file:
                    sha.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            text = f"cannot read {error.filename} ({error.strerror}): {REMEDY}"
            raise UserError(text) from error
        return sha.hexdigest()

    def test_split(self) -> str:
        """The split to test on: `test`, or `validation` where it is the only other one."""
        splits = self._builder.info.splits
        for name in ("test", "validation"):
            if "train" in splits and name in splits:
                return name
        raise UserError(
            f"{self.slug} has the splits {', '.join(splits)}: this needs train and test (or "
            "validation); choose another --dataset"
        )

    def count(self, split: str) -> int:
        """Number of examples that the folder says a split has."""
        return self._builder.info.splits[split].num_examples

    def check(self, split: str) -> None:
        """Reads a split's records without decoding them: each is held against its checksum.

        Raises:
          UserError: a record is damaged, or there are more or fewer than the folder says.
        """
        from array_record.python.array_record_module import ArrayRecordReader

        found = 0
        with self.reading():
            for path in self._builder.info.splits[split].filepaths:
                reader = ArrayRecordReader(str(path))
                found += len(reader.read_all())
                reader.close()
        if found != self.count(split):
            raise self._damaged(f"{found} {split} examples, not {self.count(split)}")
        if not found:
            raise self._damaged(f"no {split} examples")

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        """Decodes the examples of a split one by one, within `reading`."""
        source = self.open(split)
        for row in track(range(self.count(split)), f"decoding {self.slug} {split}"):
            yield source[row]

    def open(self, split: str) -> Any:
        """What decodes the example of a row when it is indexed, within `reading`."""
        return self._builder.as_data_source(split=split)

    def source(self, split: str) -> "Source":
        """A split's images and labels, to be read one by one."""
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
        except Exception as error:
            raise self._damaged(first_line(error)) from error

    def _damaged(self, why: str) -> UserError:
        return UserError(f"{self.folder} is damaged ({why}): {REMEDY}")


class Source:
    """A split's images and labels; each process opens its files for itself."""

    def __init__(self, stored: Stored, split: str):
        self._stored, self._split = stored, split
        self._opened: Any = None

    def __len__(self) -> int:
        return self._stored.count(self._split)

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
        return _reopened, (*self._stored.place, self._split)


def _reopened(name: str, data_dir: str, split: str) -> Source:
    return Source(open_dataset(name, data_dir, ()), split)


def folder(data_dir: str) -> Path:
    """The folder that --data_dir names; empty: TFDS's own."""
    return Path(os.path.expanduser(data_dir or _import().core.constants.DATA_DIR))


def open_dataset(name: str, data_dir: str, features: tuple[str, ...]) -> Stored:
    """Finds a data set of TFDS by name; instant, and without network.

    Args:
      name: as TFDS has it.
      data_dir: TFDS folder; empty: TFDS's own.
      features: what an example of it must have.

    Raises:
      UserError: there is no data set of that name, or it lacks one of the features.
    """
    tfds = _import()
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except Exception as error:  # each kind of bad name raises another kind of error
        folder = Path(os.path.expanduser(data_dir)) / name
        if data_dir and name and folder.is_dir():
            text = f"{folder} is damaged ({first_line(error)}): {REMEDY}"
            raise UserError(text) from error
        raise UserError(
            f"--dataset={name}: no such data set (the names are at tensorflow.org/datasets; "
            "--dataset=embedded needs no download; a folder begins with / or ./)"
        ) from error
    found = builder.info.features or {}
    if not set(features) <= set(found):
        raise UserError(
            f"--dataset={name} has no {' and '.join(features)} (features: {', '.join(found)}): "
            "choose one that has"
        )
    return Stored(builder, (name, data_dir))


def downloads(name: str) -> dict[str, tuple[int, str]]:
    """The addresses that TFDS fetches a data set from: URL -> (bytes, SHA-256)."""
    infos = _import().builder(name).url_infos
    return {url: (int(info.size), info.checksum) for url, info in infos.items()}


def write(
    name: str,
    data_dir: str,
    splits: Mapping[str, Iterable[dict[str, Any]]],
    label_names: dict[str, list[str]],
) -> Path:
    """Writes a stock data set of TFDS from examples; any TFDS user can then read the folder.

    Args:
      name: of a data set of TFDS, whose features the examples have.
      data_dir: TFDS folder; empty: TFDS's own.
      splits: examples by split; images as encoded bytes.
      label_names: names of the classes by label feature; empty: as TFDS has them.

    Returns:
      The folder written.
    """
    tfds = _import()
    stock = tfds.builder_cls(name)

    with tfds.core.registered.skip_registration():

        class WithoutTensorFlow(stock):  # type: ignore[misc, valid-type]
            """The stock builder, fed from `splits` in place of its own download."""

            def _split_generators(self, dl_manager: Any, *args: Any) -> Any:
                del dl_manager, args
                for feature, names in label_names.items():
                    self.info.features[feature].names = names
                return {split: enumerate(examples) for split, examples in splits.items()}

    WithoutTensorFlow.name = stock.name
    WithoutTensorFlow.pkg_dir_path = stock.pkg_dir_path
    builder = WithoutTensorFlow(data_dir=data_dir or None, file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_path)


def _import() -> Any:
    import tensorflow_datasets

    tensorflow_datasets.disable_progress_bar()  # `track` shows the progress of all we do
    return tensorflow_datasets
