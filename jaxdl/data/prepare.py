"""Downloads stock data sets of images and text into ordinary TFDS folders.

TFDS lacks Multi30k, so that becomes a folder of plain text beside them.
"""

import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from jaxdl import checksums
from jaxdl.config_checks import check_text
from jaxdl.data import cache, download, tfds
from jaxdl.data.catalog import open_dataset, parse_name
from jaxdl.data.claims import claim
from jaxdl.data.recipes import RECIPES, Recipe
from jaxdl.data.stored import PreparedDataset
from jaxdl.errors import UserError

# Size and SHA-256 of each unpacked file: the bytes of a .gz may change without its content.
MULTI30K = {
    "train.en": (1801238, "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6"),
    "train.de": (2110398, "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72"),
    "val.en": (63297, "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227"),
    "val.de": (75981, "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660"),
    "test_2016_flickr.en": (
        62076,
        "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    ),
    "test_2016_flickr.de": (
        70649,
        "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    ),
}
MULTI30K_SPLITS = ("train", "val", "test_2016_flickr")
MULTI30K_URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
NAMES = (*RECIPES, "multi30k")


def multi30k(data_dir: str) -> Path:
    """Returns the folder of Multi30k's text (task 1, English and German); downloads missing files.

    Args:
      data_dir: folder that has a folder multi30k, or that folder itself; empty: TFDS's default
        folder.

    Returns:
      The folder of the text files.

    Raises:
      UserError: the files are absent, and cannot be downloaded or written.
    """
    above = tfds.folder(data_dir)
    if existing := _find_multi30k(above):
        return existing
    folder = above / "multi30k"
    try:
        for name, (size, sha256) in MULTI30K.items():
            if not (folder / name).exists():  # a user's own version of a file is kept
                download.fetch(
                    f"{MULTI30K_URL}/{name}.gz", folder / name, size, sha256, gzipped=True
                )
    except UserError as error:
        raise UserError(
            f"multi30k is not in {above} ({error}): run `jaxdl prepare multi30k` where there is a "
            "network, or give --data_dir=FOLDER that has multi30k/train.en and so on, or "
            "--dataset=embedded, which needs no download"
        ) from error
    return folder


def _find_multi30k(above: Path) -> Path | None:
    """Finds the folder with all of Multi30k's text: `above/multi30k`, or `above` itself."""
    folders = above / "multi30k", above
    return next((f for f in folders if all((f / name).exists() for name in MULTI30K)), None)


def is_lacking(name: str, data_dir: str) -> bool:
    """Returns True for a data set that `prepare` can download and that is not in the folder.

    Args:
      name: name of the data set.
      data_dir: TFDS folder; empty: TFDS's default folder.
    """
    if name == "multi30k":
        return _find_multi30k(tfds.folder(data_dir)) is None
    if re.split("[:/]", name)[0] not in RECIPES:
        return False
    return not open_dataset(name, data_dir, ()).is_prepared()


def open_or_prepare(name: str, data_dir: str, features: tuple[str, ...]) -> PreparedDataset:
    """Opens a data set of TFDS; an absent one is downloaded and prepared first.

    Args:
      name: name of the data set, see `catalog.open_dataset`.
      data_dir: TFDS folder; empty: TFDS's default folder.
      features: features that an example must have.

    Returns:
      The prepared data set.

    Raises:
      UserError: `catalog.open_dataset` or `prepare` fails.
    """
    stored = open_dataset(name, data_dir, features)
    if not stored.is_prepared():
        prepare(name, data_dir)
        stored = open_dataset(name, data_dir, features)
    return stored


def prepare(name: str, data_dir: str) -> Path:
    """Downloads a data set and writes it into a TFDS folder.

    One process prepares a data set while others wait for its folder.

    Args:
      name: name of the data set.
      data_dir: TFDS folder; empty: TFDS's default folder.

    Returns:
      The folder of the prepared data set.

    Raises:
      UserError: there is no recipe for the data set, or it cannot be downloaded or written.
    """
    check_text("data_dir", data_dir)
    if name == "multi30k":
        return multi30k(data_dir)
    stored = open_dataset(name, data_dir, ())
    if stored.is_prepared():
        return stored.folder
    # An absent data set is a stock one in its newest version, or `open_dataset` would fail.
    recipe, _, _ = parse_name(name)
    if recipe not in RECIPES:
        raise UserError(
            f"{name} is not in {stored.folder.parent}, and only {', '.join(NAMES)} can be "
            "prepared here: prepare it with tensorflow_datasets (file_format='array_record') and "
            "give its --data_dir, or choose one of these, or --dataset=embedded"
        )
    try:
        with claim(cache.folder() / "downloads" / recipe):
            if not open_dataset(name, data_dir, ()).is_prepared():
                prepare_from(recipe, data_dir, _download(recipe))
    except (UserError, OSError) as error:
        raise UserError(
            f"{name} is not in {stored.folder.parent} ({error}): run `jaxdl prepare {name}` where "
            "there is a network, or give --data_dir=FOLDER of a TFDS folder that has it, or "
            "--dataset=embedded, which needs no download"
        ) from error
    return stored.folder


def prepare_from(name: str, data_dir: str, archives: dict[str, Path]) -> Path:
    """Writes a data set's TFDS folder from its official archives.

    Args:
      name: name of the data set, a key of RECIPES.
      data_dir: TFDS folder; empty: TFDS's default folder.
      archives: paths of the archives by file name.

    Returns:
      The folder of the prepared data set.

    Raises:
      UserError: an archive is damaged, or the folder cannot be written.
    """
    recipe = RECIPES[name](archives)
    target = open_dataset(name, data_dir, ()).folder
    try:
        with claim(target) as part:
            if not open_dataset(name, data_dir, ()).is_prepared():
                _write(name, target, part, recipe)
    except OSError as error:
        where = error.filename or data_dir
        text = f"cannot write {where} ({error.strerror}): give a --data_dir that can be written"
        raise UserError(text) from error
    return target


def _write(name: str, target: Path, part: Path, recipe: Recipe) -> None:
    """Writes a TFDS folder below `part`, syncs it to disk, and renames it to `target`."""
    written = tfds.write(name, str(part), recipe.splits, recipe.label_names)
    for path in written.iterdir():
        checksums.sync(path)
    checksums.sync(written)
    written.rename(target)
    checksums.sync(target.parent)


def _download(name: str) -> dict[str, Path]:
    """Downloads the archives of a data set; returns their paths by file name."""
    files = {}
    for url, (size, sha256) in tfds.downloads(name).items():
        file = PurePosixPath(urlparse(url).path).name
        path = cache.folder() / "downloads" / name / file
        files[file] = download.fetch(url, path, size, sha256)
    return files
