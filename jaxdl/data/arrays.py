"""Data sets of arrays that a script has.

Shapes: N examples of a split, C channels or columns, K classes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl.data.bad_examples import BadExamples
from jaxdl.data.batches import Dataset, Split
from jaxdl.data.describe import splits_digest
from jaxdl.data.labels import as_array
from jaxdl.data.records import Records
from jaxdl.data.source import LABELS, HoldOut, check_column_name, to_dataset
from jaxdl.errors import UserError

IMAGES = ("image", "img", "images")  # names that an array of images may have


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Source of arrays in memory, see `source.Source`.

    Attributes:
      name: name of the data set.
      splits: arrays [N, ...] by name, by split.
      fields: other fields of `DataSpec`.
      inputs: name of the array whose `mean` and `std` [C] are constants; "": none.
      digest: SHA-256 of the content; "": that of the arrays.
    """

    name: str
    splits: Mapping[str, Split]
    fields: Mapping[str, Any]
    inputs: str = ""
    digest: str = ""

    def constants(self, train: Split) -> dict[str, Any]:
        """Mean and standard deviation [C] of the input, over all but its last axis."""
        if not self.inputs:
            return {}
        x = train[self.inputs]
        mean = x.mean(axis=tuple(range(x.ndim - 1)), dtype=np.float64)
        std = x.std(axis=tuple(range(x.ndim - 1)), dtype=np.float64)
        return {"mean": mean, "std": np.maximum(std, 1e-12)}

    def fingerprint(self) -> str:
        """SHA-256 of the names, types, shapes and bytes of all arrays."""
        if self.digest:
            return self.digest
        return splits_digest(
            [{"split": np.array(name)} | part for name, part in self.splits.items()]
        )


# Long: half of it are its arguments and their description.
def from_arrays(
    train: Mapping[str, Any],
    test: Mapping[str, Any] | None = None,
    validation: Mapping[str, Any] | None = None,
    *,
    name: str = "arrays",
    label: str | None = None,
    classes: Sequence[str] = (),
    num_classes: int = 0,
    group: str = "",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    on_bad_example: str = "error",
    **fields: Any,
) -> Dataset:
    """Makes a data set of arrays.

    Floats and integers of 64 bits become float32 and int32. An array `img` or `images` counts as
    `image`, whose integers from 0 to 255 become uint8. Labels are classes, several classes at
    once, or numbers; see `source.to_dataset`. The description has the constants `mean` and `std`
    [C] of the training split's `image`, `x` or first array of numbers.

    >>> x, y = np.arange(40.0).reshape(20, 2), ["cat", "dog"] * 10
    >>> data = from_arrays({"x": x, "y": y}, validation_fraction=0.2)
    >>> data.spec.classes, [len(split["y"]) for split in (data.train, data.validation, data.test)]
    (('cat', 'dog'), [12, 4, 4])

    Args:
      train: training split, arrays [N, ...] by name. Images are uint8 [N, H, W] or [N, H, W, C].
      test: test split; None: a part of `train`.
      validation: validation split; None: a part of `train`.
      name: name of the data set.
      label: name of the labels; None: `label` or `y` if there is one; "": no labels.
      classes: names of the classes; integers are their indices.
      num_classes: K; 0: the number of names, or of the classes in the data.
      group: name of the array of `train` whose equal values stay in one split, such as `patient`;
        it is not part of a batch.
      validation_fraction: fraction of `train` for validation, if it is not given.
      test_fraction: fraction of `train` for the test, if it is not given.
      seed: seed of the draw of these splits.
      on_bad_example: `error` or `skip` for examples with numbers that are not finite.
      **fields: other fields of `DataSpec`, such as `version`; `mirrored` is True for images by
        default.

    Returns:
      The data set.

    Raises:
      UserError: a split is no dictionary of arrays of one length, an image has other levels, a
        label is not valid, or a split would be empty.
    """
    given = {"train": train, "validation": validation, "test": test}
    check_column_name("group", group)
    check_column_name("label", "" if label is None else label)
    splits: dict[str, Split] = {}
    bad = BadExamples(name, on_bad_example)
    for split, part in given.items():
        if part is not None or split == "train":
            splits[split] = _finite(_arrays(f"{name} ({split})", part), split, bad)
    bad.report()
    found = LABELS if label is None else (label,)
    inputs = input_name(splits["train"], (*found, group))
    options = {"classes": tuple(classes), "num_classes": num_classes, "mirrored": inputs == "image"}
    source = Arrays(name, splits, options | fields, inputs)
    if bad.rows:
        source = dataclasses.replace(source, digest=bad.fingerprint(source.fingerprint()))
    hold_out = HoldOut(validation_fraction, test_fraction, seed, group)
    return to_dataset(source, hold_out, label)


def _arrays(where: str, part: Any) -> Split:
    """Arrays of a split in the types of batches; images are levels or floats.

    Raises:
      UserError: it is no dictionary of arrays, or has images of other types or levels.
    """
    arrays = dict(part.items()) if hasattr(part, "items") else None
    if arrays is None or not all(isinstance(name, str) for name in arrays):
        kind = type(part).__name__ + ("" if arrays is None else " whose keys are no names")
        raise UserError(
            f"{where} is a {kind}: give a dictionary of arrays by name, such as "
            '{"image": images, "label": labels}'
        )
    arrays = named_image({k: as_array(f"{where}, {k}", array) for k, array in arrays.items()})
    image = arrays.get("image")
    if isinstance(image, np.ndarray) and image.dtype.kind != "f":
        is_level = image.dtype.kind in "iu" and bool(np.all((image >= 0) & (image <= 255)))
        if not is_level or image.ndim < 3:
            span = f" from {image.min()} to {image.max()}" if image.dtype.kind in "iu" else ""
            raise UserError(
                f"{where}, image is {image.dtype} {list(image.shape)}{span}: give integers "
                "[N, H, W] or [N, H, W, C] from 0 to 255, or floats"
            )
        arrays["image"] = image.astype(np.uint8)
    return arrays


def named_image(arrays: dict[str, Any]) -> dict[str, Any]:
    """Gives an array with one of the names IMAGES the first of them, if no other array has it."""
    found = next((name for name in IMAGES if name in arrays), "image")
    return {"image" if name == found else name: array for name, array in arrays.items()}


def _finite(arrays: Split, split: str, bad: BadExamples) -> Split:
    """Leaves out the rows with numbers that are not finite; grey images get an axis of channels.

    Raises:
      UserError: there is such a row, and it must not be left out.
    """
    if not arrays or isinstance(arrays, Records):
        return arrays
    if "image" in arrays and arrays["image"].ndim == 3:
        arrays = arrays | {"image": arrays["image"][..., None]}
    for name, array in arrays.items():
        if isinstance(array, np.ndarray) and array.dtype.kind == "f":
            finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
            for row in np.flatnonzero(~finite).tolist():
                if row not in bad.rows.get(split, []):
                    bad.add(
                        split, row, UserError(f"{name!r} of row {row:,} of {split} is not finite")
                    )
    count = min(map(len, arrays.values()))
    if split not in bad.rows or any(len(array) != count for array in arrays.values()):
        return arrays
    rows = bad.kept(split, count)
    return {name: array[rows] for name, array in arrays.items()}


def input_name(train: Split, others: tuple[str, ...]) -> str:
    """Name of the model's input: `image`, `x` or the first array of floats; "" if there is none."""
    names = [
        name
        for name, array in train.items()
        if name not in others
        and isinstance(array, np.ndarray)
        and array.ndim > 1
        and (array.dtype == np.float32 or (array.dtype == np.uint8 and array.ndim == 4))
    ]
    return next((name for name in ("image", "x") if name in names), names[0] if names else "")
