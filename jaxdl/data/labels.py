"""Arrays of one's own in the types of batches, and labels of classes, several classes or numbers.

Shapes: N examples of a split, K classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdl.console import say
from jaxdl.data.columns import LARGEST
from jaxdl.data.spec import DTYPES
from jaxdl.errors import UserError, shortened

MOST_CLASSES = 1_000_000
LONGEST = 200  # characters of a string in an array, such as the name of a class


def as_array(where: str, values: Any) -> Any:
    """Converts values to an array of a type that batches have, or of strings.

    Numbers of 64 and 16 bits become float32 and int32. A column that is not in memory passes.

    Args:
      where: name of the array, for the error message.
      values: array [N, ...], a sequence, or an object with `shape`, `dtype` and indexing.

    Raises:
      UserError: the values are no array, or have another type or an integer beyond 32 bits.
    """
    if not hasattr(values, "__array__") and str(getattr(values, "dtype", "")) in DTYPES:
        return values  # a column that is read when it is indexed
    try:
        array = np.asarray(values)
    except Exception as error:  # conversion calls code of the values' own class
        raise UserError(
            f"{where} is a {type(values).__name__} of unequal parts: give an array of NumPy"
        ) from error
    if array.dtype.kind == "O" and array.ndim == 1:
        array = _strings(where, array)
    if array.dtype.kind == "U" and array.dtype.itemsize > 4 * LONGEST:
        _strings(where, array.ravel())
    if array.ndim and (array.dtype.kind == "U" or str(array.dtype) in DTYPES):
        return array
    if array.ndim and array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return array.astype(np.float32)
    if array.ndim and array.dtype.kind in "iu":
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        if low >= -(2**31) and high < 2**31:
            return array.astype(np.int32)
        raise UserError(f"{where} ranges from {low} to {high}: give integers of 32 bits, or floats")
    raise UserError(
        f"{where} is {array.dtype} {list(array.shape)}: give an array [N, ...] of numbers, or of "
        "strings if it is the label"
    )


def _strings(where: str, array: np.ndarray) -> np.ndarray:
    """Converts objects [N] to strings, if they are short strings.

    Raises:
      UserError: they are not.
    """
    for value in array.tolist():
        if not isinstance(value, str):
            return array
        if len(value) > LONGEST:
            raise UserError(
                f"{where} has a string of {len(value):,} characters, more than {LONGEST}: give "
                "names of classes"
            )
    return array.astype(str)


def is_classes(labels: np.ndarray) -> bool:
    """Returns True for encoded labels that are classes, int32 [N]."""
    return labels.dtype.kind == "i" and labels.ndim == 1


def split_labels(
    name: str, labels: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Labels of all splits in supported types, with names of classes as indices.

    Args:
      name: name of the data set, for error messages.
      labels: labels [N], [N, 1] or [N, K] by split; `train` is one of them.

    Returns:
      The labels, and the names of the classes; () if they have none.

    Raises:
      UserError: the labels have an unsupported type, or a split has a class that train lacks.
    """
    arrays = {split: as_array(f"{name} ({split}), label", part) for split, part in labels.items()}
    arrays = {split: x[:, 0] if x.shape[1:] == (1,) else x for split, x in arrays.items()}
    if any(x.shape[1:] != arrays["train"].shape[1:] for x in arrays.values()):
        shapes = ", ".join(f"{split} {list(x.shape)}" for split, x in arrays.items())
        raise UserError(f"{name} has labels of the shapes {shapes}: give one form in all splits")
    if arrays["train"].dtype.kind == "U" and arrays["train"].ndim == 1:
        return _encode_names(name, arrays, ())
    return {
        s: x if x.ndim == 2 or x.dtype.kind == "f" else x.astype(np.int32)
        for s, x in arrays.items()
    }, ()


def encode_labels(
    name: str, labels: Mapping[str, np.ndarray], classes: tuple[str, ...] = (), num_classes: int = 0
) -> tuple[dict[str, np.ndarray], tuple[str, ...], int]:
    """Encodes the labels of all splits in the form that tasks expect.

    Integers, bools and strings [N] are classes, int32 from 0 to K - 1. Strings are numbered in
    the order of their UTF-8 bytes, unless `classes` has their order. Two axes [N, K] of 0 and 1 are
    several classes at once, float32. Floats [N] are numbers, float32. An axis of one entry, as in
    [N, 1], is dropped. There are two classes or more.

    Args:
      name: name of the data set, for error messages.
      labels: labels [N] or [N, K] by split; `train` is one of them.
      classes: names of the classes; empty if unknown.
      num_classes: K; 0: the number of names, or else of the classes in the data.

    Returns:
      The labels by split, the names of the classes, and K, which is 0 for numbers.

    Raises:
      UserError: a label is out of range or not finite, or a class has no training example.
    """
    labels = {s: x[:, 0] if x.shape[1:] == (1,) else x for s, x in labels.items()}
    train, least = labels["train"], num_classes or len(classes)
    if classes and least != len(classes):
        raise UserError(f"{name} has {len(classes)} names of {num_classes} classes: give one each")
    if train.ndim == 2 and train.dtype.kind in "fiub":
        return _encode_several(name, labels, least), classes, train.shape[1]
    if train.ndim != 1:
        raise UserError(
            f"{name} has labels of shape {list(train.shape)}: give [N] classes or numbers, or "
            "[N, K] of 0 and 1 for several classes at once"
        )
    if train.dtype.kind == "f":
        for split, values in labels.items():
            fits = np.abs(values) <= LARGEST
            if not fits.all():
                row = int(np.argmin(fits))
                raise UserError(
                    f"{name} ({split}): the label of row {row} is {values[row]:g}: give finite "
                    "numbers of at most 1e30, or integers for classes"
                )
        return {split: values.astype(np.float32) for split, values in labels.items()}, (), 0
    if train.dtype.kind == "U":
        labels, classes = _encode_names(name, labels, classes)
    encoded = {split: values.astype(np.int32) for split, values in labels.items()}
    return encoded, classes, _check_classes(name, encoded, num_classes or len(classes))


def _check_classes(name: str, labels: Mapping[str, np.ndarray], num_classes: int) -> int:
    """Returns the number of classes K of indices [N].

    Raises:
      UserError: an index is out of range, K is 1, or, if K is not given, a class has no training
        example.
    """
    given = num_classes
    num_classes = given or 1 + max(int(values.max()) for values in labels.values())
    for split, values in labels.items():
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= num_classes or high >= MOST_CLASSES:
            raise UserError(
                f"labels of {name} ({split}) range from {low} to {high}, but there "
                f"are {num_classes} classes: give labels from 0 to {num_classes - 1}"
            )
    counts = np.bincount(labels["train"], minlength=num_classes)
    if not given and not counts.all():
        low, high, absent = labels["train"].min(), labels["train"].max(), int(np.argmin(counts))
        raise UserError(
            f"labels of {name} (train) range from {low} to {high}, without class {absent}: classes "
            "start at 0, each with a training example, so subtract the lowest, give names as "
            "labels, or give num_classes"
        )
    if num_classes == 1:
        raise UserError(
            f"labels of {name} have only one class: give two or more, or floats for numbers"
        )
    return num_classes


def _encode_names(
    name: str, labels: Mapping[str, np.ndarray], classes: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Indices of names [N] in `classes`, which are those of the training split if empty.

    Raises:
      UserError: a split has a name that is not in `classes`.
    """
    known = classes or tuple(np.unique(labels["train"]).tolist())
    encoded = {}
    for split, values in labels.items():
        names, inverse = np.unique(values, return_inverse=True)
        unknown = sorted(set(names.tolist()) - set(known))
        if unknown:
            raise UserError(
                f"{name} ({split}) has the class {shortened(unknown[0])!r}, which "
                f"{'is not among its names' if classes else 'train lacks'}: rename it, or add it"
            )
        index = {value: number for number, value in enumerate(known)}
        encoded[split] = np.array([index[value] for value in names.tolist()], np.int32)[inverse]
    return encoded, known


def _encode_several(
    name: str, labels: Mapping[str, np.ndarray], num_classes: int
) -> dict[str, np.ndarray]:
    """Several classes at once, float32 [N, K]; a line says so if each example has one class.

    Raises:
      UserError: an entry is neither 0 nor 1, or K is not the number of classes.
    """
    columns = labels["train"].shape[1]
    if columns < 1 or columns != (num_classes or columns):
        raise UserError(
            f"{name} has labels of shape {list(labels['train'].shape)} for {num_classes} classes: "
            "give one column for each class"
        )
    for split, values in labels.items():
        wrong = ~((values == 0) | (values == 1))
        if wrong.any():
            row, column = (int(n) for n in np.argwhere(wrong)[0])
            raise UserError(
                f"{name} ({split}): the label of row {row} for class {column} is "
                f"{values[row, column]}: several classes at once are 0 or 1 each"
            )
    if columns > 1 and np.all(labels["train"].sum(axis=1) == 1):
        say(
            f"{name}: labels {list(labels['train'].shape)} of 0 and 1 are several classes at once, "
            "though each example has one: for exclusive classes give indices, labels.argmax(1)"
        )
    return {split: values.astype(np.float32) for split, values in labels.items()}
