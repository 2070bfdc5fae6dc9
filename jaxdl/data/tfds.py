"""TFDS folders, read and written without TensorFlow; the one module that imports it."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.data import pixels
from jaxdl.data.batches import Split
from jaxdl.errors import UserError, first_line
from jaxdl.progress import track

REMEDY = "delete that folder and prepare it again, or name another --data_dir or --dataset"


class Stored:
    """A data set of TFDS in a folder, whether it is there yet or not."""

    def __init__(self, builder: Any):
        self._builder = builder
        self.folder = Path(builder.data_path)
        self.version = str(builder.version)
        self.slug = builder.info.full_name.replace("/", "-")

    def is_prepared(self) -> bool:
        """Whether the folder holds the data set (in a format that needs no TensorFlow)."""
        return self._builder.is_prepared()

    @property
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

    def matches(self, split: str, image_size: int, arrays: Split) -> bool:
        """Whether arrays from elsewhere have the types and shapes that `read` would give."""
        if set(arrays) != {"image", "label"}:
            return False
        image, label = arrays["image"], arrays["label"]
        count = self._builder.info.splits[split].num_examples
        return (
            (image.dtype, label.dtype) == (np.uint8, np.int32)
            and image.shape[:3] == (count, image_size, image_size)
            and image.ndim == 4
            and label.shape == (count,)
        )

    def check(self, split: str) -> None:
        """Reads a split's records without decoding them: each is held against its checksum.

        Raises:
          UserError: a record is damaged, or there are more or fewer than the folder says.
        """
        from array_record.python.array_record_module import ArrayRecordReader

        info, found = self._builder.info.splits[split], 0
        try:
            for path in info.filepaths:
                reader = ArrayRecordReader(str(path))
                found += len(reader.read_all())
                reader.close()
        except Exception as error:  # as in read
            text = f"{self.folder} is damaged ({first_line(error)}): {REMEDY}"
            raise UserError(text) from error
        if found != info.num_examples:
            text = f"{found} {split} examples, not {info.num_examples}"
            raise UserError(f"{self.folder} is damaged ({text}): {REMEDY}")

    def read(self, split: str, image_size: int) -> Split:
        """Decodes a whole split into arrays, images resized.

        Raises:
          UserError: the files are damaged, or not images of 1 or 3 channels.
        """
        count = self._builder.info.splits[split].num_examples
        try:
            source = self._builder.as_data_source(split=split)
            channels = source[0]["image"].shape[-1]
            image = np.empty((count, image_size, image_size, channels), np.uint8)
            label = np.empty(count, np.int32)
            for row in track(range(count), f"decoding {self.slug} {split}"):
                example = source[row]
                image[row] = pixels.resize(example["image"], image_size)
                label[row] = example["label"]
        except Exception as error:  # the readers raise whatever a damaged byte leads them to
            text = f"{self.folder} is damaged ({first_line(error)}): {REMEDY}"
            raise UserError(text) from error
        if not ((label >= 0) & (label < self.num_classes)).all():
            raise UserError(f"{self.folder} is damaged (label out of range): {REMEDY}")
        return {"image": image, "label": label}


def open_dataset(name: str, data_dir: str) -> Stored:
    """Finds an image-classification data set of TFDS by name; instant, and without network.

    Raises:
      UserError: there is no data set of that name, or it has no `image` and `label`.
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
    features = builder.info.features
    if not features or not {"image", "label"} <= set(features):
        raise UserError(
            f"--dataset={name} has no image and label (features: {', '.join(features or {})}); "
            "choose an image-classification data set"
        )
    return Stored(builder)


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
