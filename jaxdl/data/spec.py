"""Data specification: everything that a model must know about a data set.

A task is built from the specification alone. A run saves it as `data.json`, so that prediction,
generation and export work from a run folder without the data.

Shapes: N training examples, K classes, C channels or columns.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxdl.errors import UserError, first_line, shortened

if TYPE_CHECKING:
    from jaxdl.text.vocabulary import Vocabulary


NAME, TOKENIZER = "data.json", "tokenizer.json"  # files in a run folder
DTYPES = ("bool", "uint8", "int32", "float32")
LARGEST = float(np.finfo(np.float32).max)  # limit on the absolute value of a constant
LEAST = {"num_train": 1, "num_classes": 0, "per_row": 1, "vocabulary": 0}  # lower bounds of fields
RANK = 8  # limit on the dimensions of an example
Nested = float | tuple[Any, ...]
# Fields that came after the first run folders: left out of the file at their default, so that the
# file of a data set without them, and its SHA-256, stay the same.
ADDED: dict[str, Any] = {"categories": [], "balanced_by": "", "operands": []}


class Element(NamedTuple):
    """Array of a batch.

    Attributes:
      name: name of the array.
      shape: shape of one example, without the batch axis.
      dtype: type of the entries, one of DTYPES.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Description of a data set. Equal descriptions give the same compiled program.

    Attributes:
      name: name of the data set.
      version: version of its files, or of the code that generates it.
      fingerprint: SHA-256 of the source's bytes and of the way they are split.
      num_train: number of training examples, N.
      elements: arrays of a batch, except `index` and `mask`.
      source: location of the data, shown in a run's output.
      num_classes: number of classes, K; 0 if labels are numbers or absent.
      classes: names of the classes; empty if unknown.
      columns: names of the columns of a table.
      categories: names of the categories of each categorical column, by the column's name; their
        indices are the column's values.
      balanced_by: name of the array of class indices whose classes an epoch draws equally often;
        empty: an epoch visits each example once.
      mirrored: True if an image flipped left to right keeps its label.
      widths: ascending widths that sequences are padded to; the last is the longest of any split.
      per_row: examples that a row of a batch stands for, such as steps in an environment.
      constants: arrays by name, such as the `mean` and `std` [C] of the training split.
      operands: names of the constants that are arguments of the compiled program, so that splits by
        several seeds share one. In `build` they are JAX arrays, whose values are not known.
      vocabulary: number of token ids.
      tokenizer: vocabulary that converts between text and ids; None without text.
    """

    name: str
    version: str
    fingerprint: str
    num_train: int
    elements: tuple[Element, ...]
    source: str = dataclasses.field(default="", compare=False)
    num_classes: int = 0
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    categories: tuple[tuple[str, tuple[str, ...]], ...] = ()
    balanced_by: str = ""
    mirrored: bool = False
    widths: tuple[int, ...] = ()
    per_row: int = 1
    constants: tuple[tuple[str, Nested], ...] = ()
    operands: tuple[str, ...] = ()
    vocabulary: int = 0
    tokenizer: "Vocabulary | None" = dataclasses.field(default=None, compare=False, repr=False)

    def constant(self, name: str) -> np.ndarray:
        """Returns a constant as a float32 array; one of the `operands` may be a traced array.

        Raises:
          UserError: there is no constant of this name.
        """
        constants = dict(self.constants)
        if name not in constants:
            raise UserError(
                f"the data set {self.name} has no constant {name!r}: use the run's own data"
            )
        value = constants[name]
        return value if isinstance(value, jax.Array) else np.asarray(value, np.float32)

    def operand_values(self) -> dict[str, np.ndarray]:
        """Returns the constants that are arguments of the compiled program, by name."""
        return {name: self.constant(name) for name in self.operands}

    def with_operands(self, values: Mapping[str, Any]) -> "DataSpec":
        """Returns the description with other values of its operands, which may be traced arrays."""
        constants = tuple((name, values.get(name, value)) for name, value in self.constants)
        return dataclasses.replace(self, constants=constants)

    def without_operands(self) -> "DataSpec":
        """Returns the description with 1 in its operands: equal for all that share a program."""
        values = {n: _to_tuples((0 * v + 1).tolist()) for n, v in self.operand_values().items()}
        return self.with_operands(values)

    def class_counts(self) -> np.ndarray:
        """Training examples of each class, int [K].

        Raises:
          UserError: they have not been counted.
        """
        if "class_counts" not in dict(self.constants):
            raise UserError(
                f"the classes of {self.name} have not been counted: let the experiment's `load` "
                "return classification.with_classes(config, data)"
            )
        return self.constant("class_counts").astype(np.int64)

    def present_classes(self) -> np.ndarray:
        """Classes that have training examples, int [P]."""
        return np.flatnonzero(self.class_counts())

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the training split, float32 [C] each."""
        return self.constant("mean"), self.constant("std")

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one example of an array, without the batch axis.

        Raises:
          UserError: there is no array of this name.
        """
        shapes = {element.name: element.shape for element in self.elements}
        if name not in shapes:
            raise UserError(
                f"the data set {self.name} has no array {name!r}, which the task needs, only "
                f"{shortened(', '.join(shapes))}: name it so, or use the run's own data"
            )
        return shapes[name]

    @property
    def num_outputs(self) -> int:
        """Outputs of a model of the labels: one logit for each class, or one number."""
        return self.num_classes or 1

    def example(self, size: int = 1) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a batch of `size` examples, with `index` and `mask` [B]."""
        index, mask = Element("index", (), "int32"), Element("mask", (), "float32")
        return {
            element.name: jax.ShapeDtypeStruct((size, *element.shape), np.dtype(element.dtype))
            for element in (*self.elements, index, mask)
        }

    def to_json(self) -> str:
        """Serializes the description; it has the digest of the tokenizer, not the tokenizer."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["tokenizer"]
        values["elements"] = [element._asdict() for element in self.elements]
        values["constants"] = dict(self.constants)
        values = {name: v for name, v in values.items() if name not in ADDED or v}
        values["tokenizer_sha256"] = _digest(self.tokenizer_json())
        return json.dumps(values, indent=2) + "\n"

    def tokenizer_json(self) -> str:
        """Serializes the tokenizer; "" if there is none."""
        from jaxdl.text import vocabulary

        return vocabulary.to_json(self.tokenizer) if self.tokenizer else ""

    @classmethod
    def from_json(cls, text: str, tokenizer: str = "") -> "DataSpec":
        """Inverse of `to_json`; every value is validated, as run folders are not trusted.

        Args:
          text: result of `to_json`.
          tokenizer: result of `tokenizer_json`.

        Raises:
          UserError: the text is invalid, or was written with another tokenizer.
        """
        try:
            return _parse(json.loads(text), tokenizer)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{NAME} is not a valid description of data ({first_line(error)})"
            ) from error


def with_constants(spec: DataSpec, **arrays: np.ndarray) -> DataSpec:
    """Adds constants to a description.

    Raises:
      UserError: a constant is not finite.
    """
    return dataclasses.replace(spec, constants=(*spec.constants, *to_constants(arrays)))


def to_constants(arrays: Mapping[str, Any]) -> tuple[tuple[str, Nested], ...]:
    """Converts arrays to hashable constants.

    Raises:
      UserError: an array has a number that is not finite.
    """
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{name} of the training split is not finite: remove nan and inf from the data"
            )
    return tuple((name, _to_tuples(np.float32(array).tolist())) for name, array in arrays.items())


def _to_tuples(value: Any) -> Nested:
    """Converts nested lists of numbers to nested tuples.

    Raises:
      ValueError: an entry is not a number within the range of float32.
    """
    if isinstance(value, list | tuple):
        return tuple(map(_to_tuples, value))
    if type(value) not in (int, float) or not abs(value) <= LARGEST:
        raise ValueError(f"a constant has {value!r:.60}")
    return float(value)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _parse(values: Any, tokenizer: str) -> DataSpec:
    """Validates the fields of a description.

    Raises:
      ValueError, TypeError, KeyError, AttributeError: a field is invalid.
    """
    from jaxdl.text import vocabulary

    values = {**ADDED, **values}
    if values.pop("tokenizer_sha256") != _digest(tokenizer):
        raise ValueError(f"{TOKENIZER} is not the tokenizer it was written with")
    types = {field.name: field.type for field in dataclasses.fields(DataSpec)}
    del types["tokenizer"]
    if set(values) != set(types):
        unexpected = ", ".join(sorted(set(values) ^ set(types)))
        raise ValueError(f"missing or unknown fields {unexpected}")
    for name, expected in types.items():
        if expected in (str, int, bool) and type(values[name]) is not expected:
            raise ValueError(f"{name} is {values[name]!r:.60}")
    for name in ("classes", "columns", "operands"):
        values[name] = _tuple_of(str, values[name])
    values["categories"] = tuple(
        (*_tuple_of(str, [column]), _tuple_of(str, names)) for column, names in values["categories"]
    )
    for name, least in LEAST.items():
        if not least <= values[name] < 2**31:
            raise ValueError(f"{name} is {values[name]!r:.60}")
    widths = values["widths"] = _tuple_of(int, values["widths"])
    if widths != tuple(sorted(set(widths))) or min(widths, default=1) < 1:
        raise ValueError(f"widths are {widths!r:.60}")
    values["elements"] = tuple(_element(**element) for element in values["elements"])
    names = [element.name for element in values["elements"]]
    if len({*names, "index", "mask"}) != len(names) + 2:
        raise ValueError(f"elements are {names!r:.60}")
    values["constants"] = tuple((n, _to_tuples(value)) for n, value in values["constants"].items())
    for _, value in values["constants"]:
        np.asarray(value, np.float32)  # raises an error if the lists are ragged
    if not set(values["operands"]) <= set(dict(values["constants"])) - {"class_counts"}:
        raise ValueError(f"operands are {values['operands']!r:.60}")
    if values["balanced_by"]:
        (by,) = [element for element in values["elements"] if element.name == values["balanced_by"]]
        counts = np.shape(dict(values["constants"])["class_counts"])
        if (by.dtype, by.shape, counts) != ("int32", (), (values["num_classes"],)):
            raise ValueError(f"balanced_by is {values['balanced_by']!r:.60}")
    parsed_tokenizer = vocabulary.from_json(tokenizer) if tokenizer else None
    if parsed_tokenizer is not None and values["vocabulary"] != len(parsed_tokenizer):
        raise ValueError(f"a vocabulary of {values['vocabulary']} does not match its tokenizer")
    return DataSpec(**values, tokenizer=parsed_tokenizer)


def _element(name: str, shape: Iterable[int], dtype: str) -> Element:
    """Validates an element."""
    sizes = _tuple_of(int, shape)
    if type(name) is not str or dtype not in DTYPES or min(sizes, default=0) < 0:
        raise ValueError(f"an element {name!r:.60} of type {dtype!r:.60} and shape {sizes!r:.60}")
    if len(sizes) > RANK or max(math.prod(sizes), *sizes, 0) > 2**31:
        raise ValueError(f"an element of shape {sizes!r:.60}")
    return Element(name, sizes, dtype)


def _tuple_of(item_type: type, values: Any) -> tuple[Any, ...]:
    """Converts a list to a tuple; raises ValueError if an item has another type."""
    if not isinstance(values, list) or any(type(value) is not item_type for value in values):
        raise ValueError(f"{values!r:.60} is not a list of {item_type.__name__}")
    return tuple(values)
