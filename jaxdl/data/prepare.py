"""Downloads stock data sets of images and of text into ordinary TFDS folders.

Multi30k, which TFDS has not, becomes a folder of plain text beside them.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlparse

import numpy as np

from jaxdl import checksums
from jaxdl.config import check_text
from jaxdl.console import track
from jaxdl.data import archives, cache, download, pixels, tfds
from jaxdl.data.claims import claim
from jaxdl.data.stored import Stored, open_dataset, parsed
from jaxdl.errors import UserError

REVIEW = re.compile(r"aclImdb/(train/(neg|pos|unsup)|test/(neg|pos))/\d+_\d+\.txt")


class Recipe(NamedTuple):
    """Content of a data set's archives, ready for `tfds.write`."""

    splits: dict[str, Iterable[dict[str, Any]]]
    label_names: dict[str, list[str]]


def mnist(files: dict[str, Path]) -> Recipe:
    """From the four IDX files, `{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz`."""
    splits = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        path = files[f"{prefix}-images-idx3-ubyte.gz"]
        image = archives.idx(path)
        label = archives.idx(files[f"{prefix}-labels-idx1-ubyte.gz"])
        if image.shape[1:] != (28, 28) or label.shape != image.shape[:1]:
            raise UserError(
                f"{path}: images {image.shape} and labels {label.shape} do not match; delete its "
                "folder and prepare the data set again"
            )
        splits[split] = _examples(split, image[..., None], {"label": label})
    return Recipe(splits, {})


def cifar10(files: dict[str, Path]) -> Recipe:
    """From `cifar-10-binary.tar.gz`."""
    (path,) = files.values()
    train = [f"data_batch_{i}.bin" for i in range(1, 6)]
    return _cifar(
        path, "cifar-10-batches-bin", train, ["test_batch.bin"], {"label": "batches.meta"}
    )


def cifar100(files: dict[str, Path]) -> Recipe:
    """From `cifar-100-binary.tar.gz`; `label` is the fine one."""
    (path,) = files.values()
    labels = {"coarse_label": "coarse_label_names", "label": "fine_label_names"}
    return _cifar(path, "cifar-100-binary", ["train.bin"], ["test.bin"], labels)


def imdb_reviews(files: dict[str, Path]) -> Recipe:
    """From `aclImdb_v1.tar.gz`: a file each review; 0 pans, 1 praises, -1 is not known."""
    (path,) = files.values()
    labels = {"neg": 0, "pos": 1, "unsup": -1}
    found: dict[str, list[dict[str, Any]]] = {"train": [], "test": [], "unsupervised": []}
    for name, data in archives.matching(path, REVIEW.fullmatch):
        _, split, kind, _ = name.split("/")
        found["unsupervised" if kind == "unsup" else split].append(
            {"text": data.decode("utf-8"), "label": labels[kind]}
        )
    for split, reviews in found.items():
        if not reviews:
            raise archives.damaged(path, f"it has no reviews to {split}")
    return Recipe({n: track(r, f"writing {n}") for n, r in found.items()}, {})


def tiny_shakespeare(files: dict[str, Path]) -> Recipe:
    """From `input.txt`: the first nine tenths are to train, one half of the rest to validate."""
    (path,) = files.values()
    text = path.read_bytes().decode("utf-8")
    first = int(len(text) * 0.9)
    second = first + int((len(text) - first) * 0.5)
    parts = {"train": text[:first], "validation": text[first:second], "test": text[second:]}
    return Recipe({split: iter([{"text": part}]) for split, part in parts.items()}, {})


RECIPES: dict[str, Callable[[dict[str, Path]], Recipe]] = {
    "mnist": mnist,
    "fashion_mnist": mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imdb_reviews": imdb_reviews,
    "tiny_shakespeare": tiny_shakespeare,
}


# Bytes and SHA-256 of each file, unpacked: what a .gz is packed to may change.
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
    """The folder of Multi30k's text, task 1, English and German; downloads what it lacks.

    Args:
      data_dir: has a folder multi30k, or is it; empty: TFDS's own.

    Raises:
      UserError: it is absent and cannot be downloaded or written.
    """
    above = tfds.folder(data_dir)
    if found := _found_multi30k(above):
        return found
    folder = above / "multi30k"
    try:
        for name, (size, sha256) in MULTI30K.items():
            if not (folder / name).exists():  # another version of it is the user's own
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


def _found_multi30k(above: Path) -> Path | None:
    """The folder, `above` or one in it, that has all of Multi30k's text."""
    folders = above / "multi30k", above
    return next((f for f in folders if all((f / name).exists() for name in MULTI30K)), None)


def is_lacking(name: str, data_dir: str) -> bool:
    """True for a data set that `prepare` could download into a folder, and that is not there."""
    if name == "multi30k":
        return _found_multi30k(tfds.folder(data_dir)) is None
    if re.split("[:/]", name)[0] not in RECIPES:
        return False
    return not open_dataset(name, data_dir, ()).is_prepared()


def opened(name: str, data_dir: str, features: tuple[str, ...]) -> Stored:
    """Opens a data set of TFDS; one that is absent is downloaded and prepared first.

    Args:
      name: as TFDS has it.
      data_dir: TFDS folder; empty: TFDS's own.
      features: what an example of it must have.

    Raises:
      UserError: as of `stored.open_dataset` and of `prepare`.
    """
    stored = open_dataset(name, data_dir, features)
    if not stored.is_prepared():
        prepare(name, data_dir)
        stored = open_dataset(name, data_dir, features)
    return stored


def prepare(name: str, data_dir: str) -> Path:
    """Downloads a data set and writes it into a TFDS folder; returns that folder.

    Of several processes one does it, and the others wait for its folder.

    Raises:
      UserError: there is no recipe for it, or it cannot be downloaded or written.
    """
    check_text("data_dir", data_dir)
    if name == "multi30k":
        return multi30k(data_dir)
    stored = open_dataset(name, data_dir, ())
    if stored.is_prepared():
        return stored.folder
    recipe = parsed(name)[0]  # of the newest version, or there would be no such folder
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
    """Writes a data set's TFDS folder from its official archives, given by file name.

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
    """Writes a TFDS folder below `part`, all of which reaches the disk, and renames it."""
    written = tfds.write(name, str(part), recipe.splits, recipe.label_names)
    for path in written.iterdir():
        checksums.sync(path)
    checksums.sync(written)
    written.rename(target)
    checksums.sync(target.parent)


def _download(name: str) -> dict[str, Path]:
    files = {}
    for url, (size, sha256) in tfds.downloads(name).items():
        file = PurePosixPath(urlparse(url).path).name
        path = cache.folder() / "downloads" / name / file
        files[file] = download.fetch(url, path, size, sha256)
    return files


def _cifar(
    path: Path, folder: str, train: list[str], test: list[str], labels: dict[str, str]
) -> Recipe:
    names = [*train, *test, *(f"{stem}.txt" for stem in labels.values())]
    data = archives.members(path, [f"{folder}/{name}" for name in names])
    splits = {}
    for split, parts in (("train", train), ("test", test)):
        joined = b"".join(data[f"{folder}/{part}"] for part in parts)
        label, image = archives.cifar(joined, len(labels), path)
        columns = {key: label[:, i] for i, key in enumerate(labels)}
        splits[split] = _examples(split, image, columns, named=True)
    texts = {key: data[f"{folder}/{stem}.txt"].decode("ascii") for key, stem in labels.items()}
    return Recipe(splits, {key: text.split() for key, text in texts.items()})


def _examples(
    split: str, images: np.ndarray, labels: dict[str, np.ndarray], named: bool = False
) -> Iterable[dict[str, Any]]:
    for row in track(range(len(images)), f"writing {split}"):
        example: dict[str, Any] = {"image": pixels.to_png(images[row])}
        example |= {key: int(column[row]) for key, column in labels.items()}
        yield example | ({"id": f"{split}_{row:05d}"} if named else {})
