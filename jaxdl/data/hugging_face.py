"""Data sets of Hugging Face's `datasets`, whose library is not imported."""

from collections.abc import Mapping
from typing import Any

from jaxdl.console import say
from jaxdl.data.arrays import IMAGES
from jaxdl.data.batches import Dataset
from jaxdl.data.examples import from_torch
from jaxdl.data.source import LABELS
from jaxdl.errors import UserError, shortened

COLUMNS = {"image": IMAGES, "x": ("x",), "label": ("label", "labels", "target"), "y": ("y",)}


def from_huggingface(
    train: Any,
    test: Any = None,
    validation: Any = None,
    *,
    rename: Mapping[str, str] | None = None,
    name: str = "huggingface",
    **options: Any,
) -> Dataset:
    """Makes a data set of objects of Hugging Face's `datasets`: `Dataset` or one `DatasetDict`.

    Args:
      train: training examples, or a dictionary with `train` and, if there are any, `validation` and
        `test`.
      test: test examples; None: a part of `train`.
      validation: validation examples; None: a part of `train`.
      rename: other names of columns, such as {"picture": "image", "fine_label": "label"}. By
        default `image`, `img` or `images` is the image, `label`, `labels` or `target` is the label,
        and `x` and `y` keep their names. A line names the columns that are left out.
      name: name of the data set.
      **options: other arguments of `from_torch`.

    Returns:
      The data set; see `from_torch`. The names of classes are those of a `ClassLabel`.

    Raises:
      UserError: as for `from_torch`, there are no such columns, or two get one name.
    """
    parts = {"train": train, "validation": validation, "test": test}
    if isinstance(train, Mapping):
        unknown = sorted(set(train) - set(parts))
        if "train" not in train or unknown:
            raise UserError(
                f"{name} has the splits {shortened(', '.join(train))}: give train=, test= and "
                "validation= one by one"
            )
        parts = {split: train.get(split) for split in parts}
    left_out: dict[str, None] = {}
    for split, part in parts.items():
        if part is not None or split == "train":
            chosen = _chosen(f"{name} ({split})", part, rename or {})
            left_out |= dict.fromkeys(one for one in part.column_names if one not in chosen)
            parts[split] = _Columns(part, chosen)
    if left_out:
        say(
            f"{name}: columns left out: {shortened(', '.join(left_out), 300)} (rename= takes one "
            'in, as in rename={"COLUMN": "label"})'
        )
    features, classes = getattr(parts["train"].part, "features", None) or {}, ()
    for column, entry in parts["train"].chosen.items():
        if entry in LABELS:
            classes = tuple(getattr(features.get(column), "names", None) or ())
    options.setdefault("classes", classes)
    return from_torch(parts["train"], parts["test"], parts["validation"], name=name, **options)


def _chosen(where: str, part: Any, rename: Mapping[str, str]) -> dict[str, str]:
    """Names of entries by the columns that they are read from, in the order of COLUMNS.

    Raises:
      UserError: there are no such columns, two get one name, or the object has no columns.
    """
    if not all(hasattr(part, one) for one in ("column_names", "select_columns", "__len__")):
        raise UserError(
            f"{where} is a {type(part).__name__}: give a Dataset or DatasetDict that is in memory "
            "or in files, and other objects to from_torch"
        )
    there = list(part.column_names)
    columns = shortened(", ".join(there))
    absent = [column for column in rename if column not in there]
    if absent:
        raise UserError(f"{where} has no column {shortened(absent[0])!r}: rename one of {columns}")
    chosen = {}
    for entry, names in COLUMNS.items():
        found = [column for column in names if column in there and column not in rename]
        if found and entry not in rename.values():
            chosen[found[0]] = entry
    chosen |= rename
    twice = [entry for n, entry in enumerate(rename.values()) if entry in [*rename.values()][:n]]
    if twice or not chosen:
        fault = f"two columns renamed to {shortened(twice[0])!r}" if twice else "no image or label"
        raise UserError(
            f"{where} has {fault} among the columns {columns}: give "
            'rename={"COLUMN": "image", "COLUMN": "label"}'
        )
    return chosen


class _Columns:
    """Chosen columns of a `datasets.Dataset`, as dictionaries."""

    def __init__(self, part: Any, chosen: Mapping[str, str]):
        self.part, self.chosen = part.select_columns(list(chosen)), chosen

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {self.chosen[column]: value for column, value in self.part[row].items()}
