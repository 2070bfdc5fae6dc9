"""TFDS itself, without TensorFlow; the one module that imports it."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl import files
from jaxdl.data import layout
from jaxdl.errors import UserError, first_line, importing

NOWHERE = "/dev/null"  # no folder can be there, so that TFDS reads none


def folder(data_dir: str) -> Path:
    """The folder that --data_dir names; empty: TFDS's own.

    Raises:
      UserError: it lies in a home folder that is not known, or as of `files.check_encoding`.
    """
    path = os.path.expanduser(data_dir or _import().core.constants.DATA_DIR)
    if path.startswith("~"):  # else a folder of that name would be made
        raise UserError(f"{path}: there is no such home folder: give --data_dir=FOLDER")
    files.check_encoding(os.path.abspath(path), "data_dir")
    return Path(path)


class Stock(NamedTuple):
    """A data set that TFDS has code for, as that code describes it."""

    place: str  # its folder in a TFDS folder: name/config/version
    make: Callable[[], Any]  # makes its builder

    def features(self) -> list[str]:
        """Names of what an example has.

        Raises:
          UserError: TFDS's code for it fails.
        """
        try:
            return list(self.make().info.features or {})
        except Exception as error:  # what a builder needs may not be installed
            raise UserError(
                f"tensorflow_datasets cannot describe {self.place} ({first_line(error)}): install "
                "what that asks for, or choose another --dataset"
            ) from error


def stock(base: str, config: str | None, version: str | None) -> Stock | None:
    """Looks up a stock data set, without a look at any folder; None: TFDS has no such one.

    Args:
      base: its name.
      config: of the data set; None: its default.
      version: as of `layout.is_version`.
    """
    tfds = _import()
    exact = version if version and "*" not in version else None
    try:
        builder = tfds.builder_cls(base)
        chosen = builder.get_builder_config(config, exact) if config else None
        chosen = chosen or builder.default_builder_config
        newest = str(tfds.core.dataset_builder.canonical_version_for_config(builder, chosen))
    except Exception:  # each kind of bad name raises another kind of error
        return None
    name = chosen.name if chosen else None
    if builder.name != base or config not in (None, name):
        return None
    if not layout.is_version(newest, version):
        return None
    make = functools.partial(builder, data_dir=NOWHERE, config=name)
    return Stock("/".join(part for part in (base, name, newest) if part), make)


def parser() -> Callable[[bytes], Any]:
    """The function that parses a record, which is a `tf.train.Example`."""
    _import()
    with importing("tensorflow-datasets"):
        from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString


def downloads(name: str) -> dict[str, tuple[int, str]]:
    """The addresses that TFDS fetches a data set from: URL -> (bytes, SHA-256)."""
    infos = _import().builder_cls(name).url_infos
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
      data_dir: TFDS folder.
      splits: examples by split; images as encoded bytes.
      label_names: names of the classes by label feature; empty: as TFDS has them.

    Returns:
      The folder written. One that is there stays as it is.
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
    builder = WithoutTensorFlow(data_dir=data_dir, file_format="array_record")
    with contextlib.redirect_stdout(None):  # it says that it downloads
        builder.download_and_prepare()
    return Path(builder.data_path)


def _import() -> Any:
    with importing("tensorflow-datasets"):
        import tensorflow_datasets

    tensorflow_datasets.disable_progress_bar()  # `track` shows the progress of all we do
    return tensorflow_datasets
