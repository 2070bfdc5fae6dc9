"""Interface to TFDS, used without TensorFlow; the only module that imports TFDS."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl import files
from jaxdl.data import layout
from jaxdl.errors import UserError, first_line, importing

NOWHERE = "/dev/null"  # a data_dir that cannot be a folder, so that TFDS reads none


def folder(data_dir: str) -> Path:
    """Resolves a value of --data_dir.

    Args:
      data_dir: TFDS folder; empty: TFDS's default folder.

    Returns:
      The folder, with ~ expanded.

    Raises:
      UserError: the home folder in the path is unknown, or `files.check_encoding` refuses the path.
    """
    path = os.path.expanduser(data_dir or _import().core.constants.DATA_DIR)
    if path.startswith("~"):  # else a folder named ~ would be created
        raise UserError(f"{path}: there is no such home folder: give --data_dir=FOLDER")
    files.check_encoding(os.path.abspath(path), "data_dir")
    return Path(path)


class Stock(NamedTuple):
    """Stock data set of TFDS, described by TFDS's own code.

    Attributes:
      place: its folder relative to a TFDS folder, name/config/version.
      make: constructor of its builder.
    """

    place: str
    make: Callable[[], Any]

    def features(self) -> list[str]:
        """Names of the features of an example.

        Raises:
          UserError: TFDS's builder fails.
        """
        try:
            return list(self.make().info.features or {})
        except Exception as error:  # a dependency of the builder may not be installed
            raise UserError(
                f"tensorflow_datasets cannot describe {self.place} ({first_line(error)}): install "
                "what that asks for, or choose another --dataset"
            ) from error


def stock(base: str, config: str | None, version: str | None) -> Stock | None:
    """Looks up a stock data set of TFDS, without reading any folder.

    Args:
      base: name of the data set.
      config: name of its config; None: the default config.
      version: pattern of `layout.is_version`.

    Returns:
      The data set, or None if TFDS has no such data set, config or version.
    """
    tfds = _import()
    exact = version if version and "*" not in version else None
    try:
        builder = tfds.builder_cls(base)
        builder_config = builder.get_builder_config(config, exact) if config else None
        builder_config = builder_config or builder.default_builder_config
        newest = str(
            tfds.core.dataset_builder.canonical_version_for_config(builder, builder_config)
        )
    except Exception:  # each kind of bad name raises another kind of error
        return None
    config_name = builder_config.name if builder_config else None
    if builder.name != base or config not in (None, config_name):
        return None
    if not layout.is_version(newest, version):
        return None
    make = functools.partial(builder, data_dir=NOWHERE, config=config_name)
    return Stock("/".join(part for part in (base, config_name, newest) if part), make)


def parser() -> Callable[[bytes], Any]:
    """Returns the function that parses a record, which is a `tf.train.Example`."""
    _import()
    with importing("tensorflow-datasets"):
        from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString


def downloads(name: str) -> dict[str, tuple[int, str]]:
    """Files that TFDS downloads for a data set: size in bytes and SHA-256 by URL."""
    infos = _import().builder_cls(name).url_infos
    return {url: (int(info.size), info.checksum) for url, info in infos.items()}


def write(
    name: str,
    data_dir: str,
    splits: Mapping[str, Iterable[dict[str, Any]]],
    label_names: dict[str, list[str]],
) -> Path:
    """Writes a stock data set of TFDS; any user of TFDS can read the folder.

    Args:
      name: name of a stock data set; the examples have its features.
      data_dir: TFDS folder.
      splits: examples by split; images are encoded bytes.
      label_names: names of the classes by label feature; empty: TFDS's own names.

    Returns:
      The folder written. An existing folder is left unchanged.
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
    with contextlib.redirect_stdout(None):  # TFDS prints that it downloads, which it does not
        builder.download_and_prepare()
    return Path(builder.data_path)


def _import() -> Any:
    with importing("tensorflow-datasets"):
        import tensorflow_datasets

    tensorflow_datasets.disable_progress_bar()  # `track` shows the progress instead
    return tensorflow_datasets
