"""Data of one's own as a data set: a small protocol, and the one function that splits and checks.

Shapes: N examples of a split, K classes.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from jaxdl.data.batches import Dataset, Split, draw_rows, select, size
from jaxdl.data.describe import describe
from jaxdl.data.labels import as_array, encode_labels, is_classes
from jaxdl.data.records import Records
from jaxdl.errors import UserError, shortened

SPLITS = ("train", "validation", "test")
LABELS = ("label", "y")  # names that a column of labels has by default


class Source(Protocol):
    """Data before they are checked and split.

    A split is a dictionary of columns [N, ...], NumPy arrays or anything with `shape`, `dtype` and
    indexing by integers [M], or a `Records`, which reads its examples on demand.
    """

    @property
    def name(self) -> str:
        """Name of the data set."""
        ...

    @property
    def splits(self) -> Mapping[str, Split]:
        """The split `train` and, if the source has them, `validation` and `test`."""
        ...

    @property
    def fields(self) -> Mapping[str, Any]:
        """Other fields of `DataSpec`, such as `source`, `version`, `columns` and `classes`."""
        ...

    def constants(self, train: Split) -> Mapping[str, Any]:
        """Constants of `DataSpec`, such as a mean, from the training split."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 of the content of all splits."""
        ...


@dataclasses.dataclass(frozen=True)
class HoldOut:
    """Draw of the splits that a source does not have.

    Attributes:
      validation: fraction of the rows of the source's `train` for validation.
      test: fraction of the same rows for the test.
      seed: seed of the draw.
      group: column whose equal values stay in one split, such as a patient; batches do not have it.
        Empty: each row on its own.
    """

    validation: float = 0.1
    test: float = 0.2
    seed: int = 0
    group: str = ""


def to_dataset(
    source: Source, hold_out: HoldOut | None = None, label: str | None = None
) -> Dataset:
    """Makes a data set of a source.

    Splits that the source does not have are drawn from its training split: by group, or else
    stratified if the labels are classes. Labels are described in `labels.encode_labels`. If they
    are numbers, see also `with_numbers`.

    Args:
      source: the source.
      hold_out: draw of the splits that the source does not have; None: the defaults.
      label: name of the column of labels; None: `label` or `y` if there is one; "": no labels.

    Returns:
      The data set.

    Raises:
      UserError: a split is missing, empty or unlike the others, a label is not valid, or an array
        has a type that is not supported.
    """
    hold_out, fields = hold_out or HoldOut(), dict(source.fields)
    check_column_name("group", hold_out.group)
    check_column_name("label", "" if label is None else label)
    splits = _checked(source, hold_out.group)
    if label is None:
        label = next((column for column in LABELS if column in splits["train"]), "")
    labels = _labels(source.name, splits, label)
    if labels:
        labels, fields["classes"], fields["num_classes"] = encode_labels(
            source.name, labels, tuple(fields.get("classes", ())), fields.get("num_classes", 0)
        )
        for name, split in splits.items():
            if not isinstance(split, Records):
                splits[name] = split | {label: labels[name]}
    given = sorted(splits)
    splits = _draw(source.name, splits, hold_out, labels.get("train"))
    constants = dict(source.constants(splits["train"]))
    if labels and not fields["num_classes"]:
        splits, constants = with_numbers(splits, constants, label)
    fingerprint = source.fingerprint()
    if given != sorted(SPLITS):
        drawn = f"{fingerprint}, {given}, {hold_out}, {label!r}"
        fingerprint = hashlib.sha256(drawn.encode("utf-8", "surrogatepass")).hexdigest()
    spec = describe(
        splits["train"],
        **{"name": source.name, "version": "1", "fingerprint": fingerprint} | fields,
        constants=constants,
    )
    return Dataset(spec, splits["train"], splits["validation"], splits["test"])


def check_column_name(argument: str, value: Any) -> None:
    """Checks an argument that names an array.

    Raises:
      UserError: it is no name, such as the array itself.
    """
    if not isinstance(value, str):
        raise UserError(
            f"{argument} is a {type(value).__name__}: give the name of an array of the data, as in "
            f'from_arrays({{..., "{argument}": array}}, {argument}="{argument}")'
        )


def _checked(source: Source, group: str) -> dict[str, Split]:
    """Splits with arrays of supported types, after a check of their names, lengths and shapes.

    Raises:
      UserError: a split is missing, empty or unlike the training split.
    """
    splits: dict[str, Split] = {}
    unknown = [name for name in source.splits if name not in SPLITS]
    if unknown or not source.splits.get("train"):
        raise UserError(
            f"{source.name} has the splits {shortened(', '.join(map(str, source.splits)))}: give "
            f"train and, if there are any, {' and '.join(SPLITS[1:])}"
        )
    for name, columns in source.splits.items():
        where = f"{source.name} ({name})"
        if isinstance(columns, Records):
            splits[name] = columns
            continue
        splits[name] = {
            column: as_array(f"{where}, {column}", columns[column]) for column in columns
        }
        lengths = {column: len(array) for column, array in splits[name].items()}
        if len(set(lengths.values())) != 1 or not min(lengths.values()):
            raise UserError(f"{where} has arrays of lengths {lengths}: give one length, at least 1")
    train = {name: array for name, array in splits["train"].items() if name != group}
    for name, split in splits.items():
        for column in sorted({*train, *split} - {group}):
            shapes = [
                f"{part[column].dtype} {list(part[column].shape[1:])}" if column in part else "none"
                for part in (train, split)
            ]
            if shapes[0] != shapes[1] and not _are_texts(train, split, column):
                raise UserError(
                    f"{source.name}: an example of {column!r} is {shapes[0]} in train and "
                    f"{shapes[1]} in {name}: give the same arrays in all splits"
                )
    return splits


def _are_texts(train: Split, split: Split, column: str) -> bool:
    """Returns True for strings in both splits: their types differ by their lengths."""
    return all(column in part and part[column].dtype.kind == "U" for part in (train, split))


def _labels(name: str, splits: Mapping[str, Split], label: str) -> dict[str, np.ndarray]:
    """Labels [N, ...] of each split; empty without labels.

    Raises:
      UserError: there is no such column.
    """
    if not label:
        return {}
    if label not in splits["train"]:
        columns = shortened(", ".join(splits["train"]))
        raise UserError(f"{name} has no column {shortened(label)!r}: name one of {columns}")
    return {split: labels_of(columns, label) for split, columns in splits.items()}


def with_numbers(
    splits: dict[str, Split], constants: dict[str, Any], label: str = "label"
) -> tuple[dict[str, Split], dict[str, Any]]:
    """Adds what regression needs of labels that are numbers.

    Args:
      splits: splits whose labels are float32 [N].
      constants: constants of the description.
      label: name of the labels.

    Returns:
      The splits with `centre` [N], the mean of the split's labels, which R² refers to; and the
      constants with `LABEL_mean` and `LABEL_std` of the training split.
    """
    numbers = labels_of(splits["train"], label).astype(np.float64)
    constants = constants | {
        f"{label}_mean": numbers.mean(),
        f"{label}_std": max(numbers.std(), 1e-12),
    }
    return {split: _with_centre(part, label) for split, part in splits.items()}, constants


def labels_of(split: Split, name: str = "label") -> np.ndarray:
    """Labels of a split, without decoding images."""
    return split.labels() if isinstance(split, Records) else np.asarray(split[name][:])


def _with_centre(split: Split, label: str) -> Split:
    """Adds the mean of a split's labels as an array `centre` [N]."""
    labels = labels_of(split, label)
    if isinstance(split, Records):
        return split.labelled(labels)
    centre = labels.mean(dtype=np.float64)
    return split | {"centre": np.full(size(split), centre, np.float32)}


def _draw(
    name: str, splits: dict[str, Split], hold_out: HoldOut, labels: np.ndarray | None
) -> dict[str, Split]:
    """Draws the splits that are missing, and drops the column of groups.

    Raises:
      UserError: a split would be empty, or there is no such column of groups.
    """
    train, count, groups = splits["train"], size(splits["train"]), None
    missing = [split for split in ("test", "validation") if split not in splits]
    if hold_out.group and missing:
        if hold_out.group not in train:
            columns = shortened(", ".join(train))
            raise UserError(
                f"{name} has no column {shortened(hold_out.group)!r} of groups: name one of "
                f"{columns}"
            )
        groups = np.asarray(train[hold_out.group][:])
    kept, drawn = np.arange(count), {}
    for split in missing:
        fraction = getattr(hold_out, split)
        held_out = round(count * fraction)
        classes = labels[kept] if labels is not None and is_classes(labels) else None
        of_group = None if groups is None else groups[kept]
        units = len(kept) if of_group is None else len(np.unique(of_group))
        if not 0 < held_out < len(kept) or units < 2:
            unit = "rows" if of_group is None else f"values of {hold_out.group}"
            raise UserError(
                f"{name}: a fraction of {fraction} of {count} rows for {split} leaves a split "
                f"of the {units} remaining {unit} empty: give another fraction, or a {split} split"
            )
        rest, held = draw_rows(len(kept), held_out, classes, of_group, hold_out.seed)
        kept, drawn[split] = kept[rest], kept[held]
    if missing:
        splits = splits | {split: select(train, rows) for split, rows in drawn.items()}
        splits["train"] = select(train, kept)
    return {
        split: columns
        if isinstance(columns, Records)
        else {column: array for column, array in columns.items() if column != hold_out.group}
        for split, columns in splits.items()
    }
