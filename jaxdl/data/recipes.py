"""Recipes: the examples of stock data sets, read from their official archives.

Each recipe takes the paths of the archives by file name.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdl.console import track
from jaxdl.data import archives, pixels
from jaxdl.errors import UserError

REVIEW = re.compile(r"aclImdb/(train/(neg|pos|unsup)|test/(neg|pos))/\d+_\d+\.txt")


class Recipe(NamedTuple):
    """Content of a data set's archives, ready for `tfds.write`.

    Attributes:
      splits: examples by split.
      label_names: names of the classes by label feature; empty: TFDS's own names.
    """

    splits: dict[str, Iterable[dict[str, Any]]]
    label_names: dict[str, list[str]]


def mnist(files: dict[str, Path]) -> Recipe:
    """Reads the four IDX files, `{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz`.

    Raises:
      UserError: a file is damaged, or images and labels do not match.
    """
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
    """Reads `cifar-10-binary.tar.gz`.

    Raises:
      UserError: the archive is damaged.
    """
    (path,) = files.values()
    train = [f"data_batch_{i}.bin" for i in range(1, 6)]
    return _cifar(
        path, "cifar-10-batches-bin", train, ["test_batch.bin"], {"label": "batches.meta"}
    )


def cifar100(files: dict[str, Path]) -> Recipe:
    """Reads `cifar-100-binary.tar.gz`; `label` is the fine label.

    Raises:
      UserError: the archive is damaged.
    """
    (path,) = files.values()
    labels = {"coarse_label": "coarse_label_names", "label": "fine_label_names"}
    return _cifar(path, "cifar-100-binary", ["train.bin"], ["test.bin"], labels)


def imdb_reviews(files: dict[str, Path]) -> Recipe:
    """Reads `aclImdb_v1.tar.gz`, which has one file for each review.

    The labels are 0 for negative, 1 for positive, and -1 for reviews without a label.

    Raises:
      UserError: the archive is damaged, or lacks a split.
    """
    (path,) = files.values()
    labels = {"neg": 0, "pos": 1, "unsup": -1}
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "test": [], "unsupervised": []}
    for name, data in archives.read_matching(path, REVIEW.fullmatch):
        _, split, sentiment, _ = name.split("/")
        splits["unsupervised" if sentiment == "unsup" else split].append(
            {"text": data.decode("utf-8"), "label": labels[sentiment]}
        )
    for split, reviews in splits.items():
        if not reviews:
            raise archives.damaged(path, f"it has no {split} reviews")
    return Recipe({n: track(reviews, f"writing {n}") for n, reviews in splits.items()}, {})


def tiny_shakespeare(files: dict[str, Path]) -> Recipe:
    """Reads `input.txt`: 90 % for training, then 5 % each for validation and test."""
    (path,) = files.values()
    text = path.read_bytes().decode("utf-8")
    train_end = int(len(text) * 0.9)
    validation_end = train_end + int((len(text) - train_end) * 0.5)
    parts = {
        "train": text[:train_end],
        "validation": text[train_end:validation_end],
        "test": text[validation_end:],
    }
    return Recipe({split: iter([{"text": part}]) for split, part in parts.items()}, {})


def _cifar(
    path: Path, folder: str, train: list[str], test: list[str], labels: dict[str, str]
) -> Recipe:
    """Reads an archive of CIFAR; `labels` has the file of class names of each label feature."""
    names = [*train, *test, *(f"{stem}.txt" for stem in labels.values())]
    data = archives.read_members(path, [f"{folder}/{name}" for name in names])
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
    """Yields the examples of a split in TFDS's features; `named` adds an `id`."""
    for row in track(range(len(images)), f"writing {split}"):
        example: dict[str, Any] = {"image": pixels.to_png(images[row])}
        example |= {key: int(column[row]) for key, column in labels.items()}
        yield example | ({"id": f"{split}_{row:05d}"} if named else {})


RECIPES: dict[str, Callable[[dict[str, Path]], Recipe]] = {
    "mnist": mnist,
    "fashion_mnist": mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imdb_reviews": imdb_reviews,
    "tiny_shakespeare": tiny_shakespeare,
}
