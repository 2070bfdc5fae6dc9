"""Catalog of TFDS data sets: their names, and the folders that hold them.

TFDS's own code gives the folder and the features of its stock data sets, but never reads a folder.
"""

import re
from pathlib import Path

from jaxdl.data import layout as layouts
from jaxdl.data import tfds
from jaxdl.data.layout import Layout
from jaxdl.data.stored import PreparedDataset, damaged
from jaxdl.errors import UserError, first_line, shortened

# TFDS's syntax, and the version also as a folder: mnist/3.0.1. No name leads out of a TFDS folder.
NAME = re.compile(
    r"([A-Za-z]\w{0,98})(?:/(?!\d+\.\d+\.\d+$)([\w+-][\w.+-]{0,98}))?"
    r"(?:[:/]((?:\d{1,9}|\*)(?:\.(?:\d{1,9}|\*)){2}))?",
    re.ASCII,
)


def open_dataset(name: str, data_dir: str, features: tuple[str, ...]) -> PreparedDataset:
    """Finds a data set of TFDS by name, without network access and without reading its records.

    Args:
      name: name in TFDS's syntax: `mnist`, `imagenet_resized/32x32`, `mnist:3.0.1`, `mnist:3.*.*`;
        or with the version as a folder, `mnist/3.0.1`.
      data_dir: TFDS folder; empty: TFDS's default folder.
      features: features that an example must have.

    Returns:
      The data set, which may not be prepared yet if it is a stock data set of TFDS.

    Raises:
      UserError: there is no data set of that name, it lacks one of the features, or its folder is
        not as TFDS writes it.
    """
    base, config, version = parse_name(name)
    above = tfds.folder(data_dir) / base
    stock = tfds.stock(base, config, version)
    try:
        folder = above.parent / stock.place if stock else _find(above, config, version)
        if folder is None:
            raise _no_version(name, above, config) if above.is_dir() else _unknown(name)
        layout = None if stock and not folder.exists() else layouts.read(folder)
    except OSError as error:
        raise damaged(above, f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise damaged(above, first_line(error)) from error
    available = layout.features if layout else stock.features() if stock else []
    if not set(features) <= set(available):
        raise UserError(
            f"--dataset={name} has no {' and '.join(features)} (features: "
            f"{', '.join(available)}): choose one that has"
        )
    if layout is not None:
        _check_types(folder, layout, features)
    return PreparedDataset(folder, layout)


def parse_name(name: str) -> tuple[str, str | None, str | None]:
    """Parses a name into data set, config and version; see `open_dataset`.

    >>> parse_name("imagenet_resized/32x32:0.1.0")
    ('imagenet_resized', '32x32', '0.1.0')

    Raises:
      UserError: the name does not follow TFDS's syntax.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise _unknown(name)
    base, config, version = match.groups()
    return base, config, version


def _find(above: Path, config: str | None, version: str | None) -> Path | None:
    """Finds the folder of a data set that is not a stock one."""
    config = config or layouts.default_config(above)
    return layouts.find(above / config, version)


def _check_types(folder: Path, layout: Layout, features: tuple[str, ...]) -> None:
    if "image" in features and not layout.channels:
        raise damaged(folder, "the images do not have 8 bits and 1 or 3 channels")
    if "label" in features and not layout.num_classes:
        raise damaged(folder, "the label is not a class label")


def _no_version(name: str, above: Path, config: str | None) -> UserError:
    if config and (above / config).is_dir():
        above /= config
    names = sorted(path.name for path in above.iterdir() if not path.name.startswith("."))
    content = shortened(", ".join(names)) or "nothing"
    return UserError(
        f"--dataset={name}: {above} holds no such version ({content}): name one that it holds, or "
        "prepare that one with tensorflow_datasets (file_format='array_record')"
    )


def _unknown(name: str) -> UserError:
    return UserError(
        f"--dataset={name}: no such data set (the names are at tensorflow.org/datasets; "
        "--dataset=embedded needs no download; a folder begins with / or ./)"
    )
