"""Descriptions of data sets that are in memory, made from their arrays."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl.data.spec import DTYPES, DataSpec, Element, to_constants
from jaxdl.errors import UserError

RESERVED = ("mask", "index")  # entries that every batch gets


def describe(
    train: Mapping[str, Any],
    *held_out: Mapping[str, Any],
    fingerprint: str | None = None,
    **fields: Any,
) -> DataSpec:
    """Describes a data set by its training split.

    Args:
      train: training split, arrays [N, ...] by name.
      *held_out: validation and test split; they count in the fingerprint only.
      fingerprint: SHA-256 of the data and of the way they are split. By default it is computed from
        the arrays of all three splits, which then have to be given.
      **fields: other fields of `DataSpec`. `constants` may be a dictionary of arrays.

    Returns:
      The description.

    Raises:
      UserError: an array has a type or a name that is not supported, a constant is not finite, or a
        split is missing.
    """
    for name, array in train.items():
        _check_array(name, array)
    if fingerprint is None:
        if len(held_out) != 2:
            raise UserError(
                "describe(train, validation, test, ...): give all three splits, since a run is "
                "resumed and evaluated on the same bytes only"
            )
        fingerprint = splits_digest([train, *held_out])
    constants = to_constants(fields.pop("constants", {}))
    return DataSpec(
        num_train=fields.pop("num_train", None) or len(next(iter(train.values()))),
        fingerprint=fingerprint,
        elements=tuple(
            Element(name, tuple(array.shape[1:]), str(np.dtype(array.dtype)))
            for name, array in train.items()
        ),
        constants=constants,
        **fields,
    )


def _check_array(name: str, array: Any) -> None:
    """Checks the name and the type of an array of a split.

    Raises:
      UserError: one of them is not supported.
    """
    if name in RESERVED:
        raise UserError(f"an array is called {name!r}, an entry that every batch gets: rename it")
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
        raise UserError(f"{name!r} is a {type(array).__name__}: give an array of NumPy")
    if str(np.dtype(array.dtype)) not in DTYPES:
        kind = "float32" if np.issubdtype(array.dtype, np.floating) else "int32"
        raise UserError(
            f"{name!r} is {array.dtype}, and data are one of {', '.join(DTYPES)}: give "
            f"{name}.astype(numpy.{kind}), or the indices of classes in place of their names"
        )


def splits_digest(splits: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of the names, types, shapes and bytes of all arrays of the splits."""
    sha = hashlib.sha256()
    for split in splits:
        sha.update(f"{len(split)}\n".encode())
        for name, array in split.items():
            sha.update(f"{name} {array.dtype} {array.shape}\n".encode())
            sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
