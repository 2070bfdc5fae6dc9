"""Data sets of objects that give one example at a time, such as data sets of PyTorch.

PyTorch is not imported: an object needs a length and indexing.

Shapes: N examples, H by W pixels, C channels.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl.console import track
from jaxdl.data import pixels
from jaxdl.data.arrays import Arrays, input_name, named_image
from jaxdl.data.bad_examples import BadExamples
from jaxdl.data.batches import Dataset
from jaxdl.data.labels import as_array
from jaxdl.data.pixels import Size
from jaxdl.data.source import LABELS, HoldOut, to_dataset
from jaxdl.errors import UserError, first_line


# Long: half of it are its arguments and their description.
def from_torch(
    train: Any,
    test: Any = None,
    validation: Any = None,
    *,
    names: Sequence[str] = ("image", "label"),
    image_size: Size | None = None,
    name: str = "torch",
    classes: Sequence[str] = (),
    num_classes: int = 0,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    on_bad_example: str = "error",
    **fields: Any,
) -> Dataset:
    """Makes a data set of map-style PyTorch data sets, such as those of torchvision.

    Every example is read once, into memory. It must be the same each time, so leave out random
    transforms: --flip and --crop_padding augment images on the device. An example is a tuple, or a
    dictionary, of images of Pillow, tensors, arrays, numbers or strings. An `image` is converted to
    levels, uint8 [H, W, C]; see `pixels.to_levels`. An entry `img` or `images` of a dictionary
    counts as `image`.

    Args:
      train: training examples: an object with a length and indexing.
      test: test examples; None: a part of `train`.
      validation: validation examples; None: a part of `train`.
      names: names of the entries of a tuple.
      image_size: side, or height and width, that `image` is resized to; None: all have one size.
      name: name of the data set.
      classes: names of the classes; (): those of `train.classes`, if it has them.
      num_classes: number of classes; 0: the number of names, or of the classes in the data.
      validation_fraction: fraction of `train` for validation, if it is not given.
      test_fraction: fraction of `train` for the test, if it is not given.
      seed: seed of the draw of these splits.
      on_bad_example: `error` or `skip` for examples that cannot be read.
      **fields: other fields of `DataSpec`, such as `version`; `mirrored` is True for images by
        default.

    Returns:
      The data set. Its fingerprint is that of the decoded examples, before they are resized.

    Raises:
      UserError: an example cannot be read or differs in its entries or shapes, or a label is not
        valid.
    """
    given = {"train": train, "validation": validation, "test": test}
    if train is None:
        raise UserError(f"{name} (train) is None: give an object with a length and indexing")
    bad, sha = BadExamples(name, on_bad_example), hashlib.sha256()
    splits = {}
    for split, examples in given.items():
        if examples is not None:
            _check_repeats(f"{name} ({split})", examples, names)
            splits[split] = _read(f"{name} ({split})", split, examples, names, image_size, bad, sha)
    bad.report()
    known = classes or getattr(train, "classes", ())
    is_names = isinstance(known, list | tuple) and all(isinstance(one, str) for one in known)
    label = next((entry for entry in LABELS if entry in splits["train"]), "")
    is_class = label and splits["train"][label].dtype.kind in "iubU"
    options: dict[str, Any] = {"num_classes": num_classes, "mirrored": "image" in splits["train"]}
    options |= fields
    if is_names and is_class:
        options["classes"] = tuple(known)
    source = Arrays(
        name, splits, options, input_name(splits["train"], LABELS), bad.fingerprint(sha.hexdigest())
    )
    return to_dataset(source, HoldOut(validation_fraction, test_fraction, seed))


def _read(
    where: str,
    split: str,
    examples: Any,
    names: Sequence[str],
    image_size: Size | None,
    bad: BadExamples,
    sha: Any,
) -> dict[str, np.ndarray]:
    """Reads all examples into arrays [N, ...], and adds them to a hash.

    Raises:
      UserError: an example is damaged, or differs in its entries or shapes.
    """
    rows: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    for row in track(range(len(examples)), f"reading {where}"):
        try:
            example = _example(f"{where}, row {row:,}", examples, row, names)
            digest = _digest(example)
            if image_size is not None and "image" in example:
                example["image"] = pixels.resize(example["image"], image_size)
            shapes = {entry: np.shape(value) for entry, value in example.items()}
            first = first or shapes
            if shapes != first:
                raise UserError(
                    f"{where}, row {row:,} has entries of shape {shapes} and the first {first}: "
                    "give image_size, or examples of one shape"
                )
        except UserError as error:
            bad.add(split, row, error)
            continue
        sha.update(digest)
        rows.append(example)
    bad.kept(split, len(examples))
    sha.update(f"{split} {len(rows)}\n".encode())
    return {
        entry: as_array(f"{where}, {entry}", np.stack([row[entry] for row in rows]))
        for entry in first
    }


def _example(where: str, examples: Any, row: int, names: Sequence[str]) -> dict[str, Any]:
    """Reads an example as arrays by name.

    Raises:
      UserError: it cannot be read, or is neither a tuple nor a dictionary of arrays.
    """
    try:
        example = examples[row]
        if not isinstance(example, Mapping):
            example = dict(zip(names, _entries(example, names), strict=True))
        arrays = named_image({str(entry): _array(value) for entry, value in example.items()})
        if "image" in arrays:
            arrays["image"] = pixels.to_levels(arrays["image"])
    except Exception as error:  # the object's own code and decoders may raise anything
        raise UserError(
            f"{where} cannot be read ({first_line(error)}): correct it, or give tuples of "
            f"{', '.join(names)}"
        ) from error
    return arrays


def _entries(example: Any, names: Sequence[str]) -> Sequence[Any]:
    """Entries of an example that is a tuple.

    Raises:
      ValueError: it is none, or has another number of entries than there are names.
    """
    if not isinstance(example, tuple | list):
        raise ValueError(f"it is a {type(example).__name__}, not a tuple")
    if len(example) != len(names):
        raise ValueError(f"it has {len(example)} entries, and there are {len(names)} names")
    return example


def _array(value: Any) -> np.ndarray:
    """Converts an image of Pillow, a tensor, an array, a number or a string.

    Raises:
      ValueError: it is none of these.
    """
    if hasattr(value, "convert") and hasattr(value, "mode"):  # Pillow
        value = value.convert("L" if value.mode in ("1", "L", "I;16") else "RGB")
    if hasattr(value, "detach"):  # a tensor of PyTorch, on any device
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "biufU":
        raise ValueError(f"a {type(value).__name__} is no array of numbers")
    return array


def _digest(example: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 of an example's names, types, shapes and bytes."""
    sha = hashlib.sha256()
    for entry, array in sorted(example.items()):
        sha.update(f"{entry} {array.dtype} {array.shape}\n".encode("utf-8", "surrogatepass"))
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.digest()


def _check_repeats(where: str, examples: Any, names: Sequence[str]) -> None:
    """Checks that the first example that can be read is the same each time.

    Raises:
      UserError: it is not, or there is no length.
    """
    if not hasattr(examples, "__len__") or not hasattr(examples, "__getitem__"):
        raise UserError(
            f"{where} is a {type(examples).__name__}: give an object with a length and indexing"
        )
    digests = set()
    try:
        for _ in range(2 if len(examples) else 0):
            digests.add(_digest(_example(where, examples, 0, names)))
    except UserError:
        return  # reported, or left out, when all are read
    if len(digests) > 1:
        raise UserError(
            f"{where} gives another example each time: leave out random transforms, and give "
            "--flip, --crop_padding and other flags"
        )
