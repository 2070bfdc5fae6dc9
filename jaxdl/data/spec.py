"""Description of a data set: all that a model must know of the data without having them.

A task is built from it, and a run keeps it as `data.json`: so predictions, generation and exports
work from a run folder alone, where the data are not.

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

from jaxdl.errors import UserError, first_line

if TYPE_CHECKING:
    from jaxdl.text.vocabulary import Vocabulary

NAME, TOKENIZER = "data.json", "tokenizer.json"  # in a run folder
DTYPES = ("bool", "uint8", "int32", "float32")
LARGEST = float(np.finfo(np.float32).max)  # of the size of a constant
LEAST = {"num_train": 1, "num_classes": 0, "per_row": 1, "vocabulary": 0}
RANK = 8  # dimensions of an example
Nested = float | tuple[Any, ...]


class Element(NamedTuple):
    """An array of a batch: its name, and the shape and type of each example."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Description of a data set. Equal descriptions give the same compiled program.

    Attributes:
      name: of the data set.
      version: of its files, or of the code that makes it.
      fingerprint: SHA-256 of the source's bytes, and of how they are split.
      num_train: N.
      elements: the arrays of a batch, beside `index` and `mask`.
      source: where the data are, for the reader of a run's output.
      num_classes: K; 0 where labels are numbers or there are none.
      classes: names of the classes; empty where nobody knows them.
      columns: names of the columns of a table.
      mirrored: an image flipped left to right keeps its label.
      widths: ascending widths that sequences are padded to, the last the longest of any split.
      per_row: examples that a row of a batch stands for, such as steps in an environment.
      constants: arrays by name, such as the `mean` and `std` [C] of the training split.
      vocabulary: number of token ids.
      tokenizer: between text and ids.
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
    mirrored: bool = False
    widths: tuple[int, ...] = ()
    per_row: int = 1
    constants: tuple[tuple[str, Nested], ...] = ()
    vocabulary: int = 0
    tokenizer: "Vocabulary | None" = dataclasses.field(default=None, compare=False, repr=False)

    def constant(self, name: str) -> np.ndarray:
        """The constant of that name, float32.

        Raises:
          UserError: there is none.
        """
        known = dict(self.constants)
        if name not in known:
            raise UserError(f"the data {self.name} have no constant {name!r}: use those of the run")
        return np.asarray(known[name], np.float32)

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the training split: float32 [C] each."""
        return self.constant("mean"), self.constant("std")

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an example's array of that name.

        Raises:
          UserError: there is none.
        """
        shapes = {element.name: element.shape for element in self.elements}
        if name not in shapes:
            raise UserError(f"the data {self.name} have no {name!r}: use those of the run")
        return shapes[name]

    def example(self, size: int = 1) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a batch of so many examples, with `index` and `mask` [B]."""
        ends = Element("index", (), "int32"), Element("mask", (), "float32")
        return {
            e.name: jax.ShapeDtypeStruct((size, *e.shape), np.dtype(e.dtype))
            for e in (*self.elements, *ends)
        }

    def to_json(self) -> str:
        """JSON that `from_json` reads; it has the digest of `tokenizer_json`, not the tokenizer."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["tokenizer"]
        values["elements"] = [element._asdict() for element in self.elements]
        values["constants"] = dict(self.constants)
        values["tokenizer_sha256"] = _digest(self.tokenizer_json())
        return json.dumps(values, indent=2) + "\n"

    def tokenizer_json(self) -> str:
        """The tokenizer as JSON; empty where there is none."""
        from jaxdl.text import vocabulary

        return vocabulary.to_json(self.tokenizer) if self.tokenizer else ""

    @classmethod
    def from_json(cls, text: str, tokenizer: str = "") -> "DataSpec":
        """Inverse of `to_json`.

        Args:
          text: what it gave; a file of a stranger's run folder is not believed.
          tokenizer: what `tokenizer_json` gave.

        Raises:
          UserError: it is not what `to_json` gives, or goes with another tokenizer.
        """
        try:
            return _read(json.loads(text), tokenizer)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"no description of data ({first_line(error)})") from error


def describe(split: Mapping[str, Any], **fields: Any) -> DataSpec:
    """The description of a data set whose training split is {name: array [N, ...]}.

    Args:
      split: of training, in memory unless there is a fingerprint.
      fields: other fields of `DataSpec`; `constants` may be a dictionary of arrays, and without a
        `fingerprint` it is that of the split.

    Raises:
      UserError: a constant is not finite.
    """
    if "fingerprint" not in fields:
        sha = hashlib.sha256()
        for name, array in split.items():
            sha.update(f"{name} {array.dtype} {array.shape}\n".encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        fields["fingerprint"] = sha.hexdigest()
    constants = _named(fields.pop("constants", {}))
    return DataSpec(
        num_train=fields.pop("num_train", None) or len(next(iter(split.values()))),
        elements=tuple(
            Element(name, tuple(array.shape[1:]), str(np.dtype(array.dtype)))
            for name, array in split.items()
        ),
        constants=constants,
        **fields,
    )


def with_constants(spec: DataSpec, **arrays: np.ndarray) -> DataSpec:
    """The description with more constants."""
    return dataclasses.replace(spec, constants=(*spec.constants, *_named(arrays)))


def _named(arrays: Mapping[str, Any]) -> tuple[tuple[str, Nested], ...]:
    """Arrays as constants.

    Raises:
      UserError: one has a number that is not finite.
    """
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{name} of the training split is not finite: leave nan and inf out")
    return tuple((name, _tuples(np.float32(array).tolist())) for name, array in arrays.items())


def _tuples(value: Any) -> Nested:
    """Nested lists of numbers that float32 has as tuples.

    Raises:
      ValueError: there is something else in them.
    """
    if isinstance(value, list | tuple):
        return tuple(map(_tuples, value))
    if type(value) not in (int, float) or not abs(value) <= LARGEST:
        raise ValueError(f"a constant has {value!r:.60}")
    return float(value)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _read(values: Any, tokenizer: str) -> DataSpec:
    from jaxdl.text import vocabulary

    values = dict(values)
    if values.pop("tokenizer_sha256") != _digest(tokenizer):
        raise ValueError(f"{TOKENIZER} is not the one that it was written with")
    kinds = {field.name: field.type for field in dataclasses.fields(DataSpec)}
    del kinds["tokenizer"]
    if set(values) != set(kinds):
        raise ValueError(f"fields {', '.join(sorted(set(values) ^ set(kinds)))}")
    for name, kind in kinds.items():
        if kind in (str, int, bool) and type(values[name]) is not kind:
            raise ValueError(f"{name} is {values[name]!r:.60}")
    for name in ("classes", "columns"):
        values[name] = _all_of(str, values[name])
    for name, least in LEAST.items():
        if not least <= values[name] < 2**31:
            raise ValueError(f"{name} is {values[name]!r:.60}")
    widths = values["widths"] = _all_of(int, values["widths"])
    if widths != tuple(sorted(set(widths))) or min(widths, default=1) < 1:
        raise ValueError(f"widths are {widths!r:.60}")
    values["elements"] = tuple(_element(**element) for element in values["elements"])
    names = [element.name for element in values["elements"]]
    if len({*names, "index", "mask"}) != len(names) + 2:
        raise ValueError(f"elements are {names!r:.60}")
    values["constants"] = tuple((n, _tuples(value)) for n, value in values["constants"].items())
    for _, value in values["constants"]:
        np.asarray(value, np.float32)  # not ragged
    words = vocabulary.from_json(tokenizer) if tokenizer else None
    if words is not None and values["vocabulary"] != len(words):
        raise ValueError(f"a vocabulary of {values['vocabulary']} is not its tokenizer's")
    return DataSpec(**values, tokenizer=words)


def _element(name: str, shape: Iterable[int], dtype: str) -> Element:
    sizes = _all_of(int, shape)
    if type(name) is not str or dtype not in DTYPES or min(sizes, default=0) < 0:
        raise ValueError(f"an element {name!r:.60} of type {dtype!r:.60} and shape {sizes!r:.60}")
    if len(sizes) > RANK or max(math.prod(sizes), *sizes, 0) > 2**31:
        raise ValueError(f"an element of shape {sizes!r:.60}")
    return Element(name, sizes, dtype)


def _all_of(kind: type, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list) or any(type(value) is not kind for value in values):
        raise ValueError(f"{values!r:.60} is no list of {kind.__name__}")
    return tuple(values)
