"""Inputs of a trained model: their forms, and arrays of them in the format of its data set.

Shapes: N examples.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError, first_line, shortened
from jaxdl.task import Predict

IMAGE, ROW, SERIES, ARRAY = "image", "row", "series", "array"
TEXT, PROMPT, SOURCE = "text", "prompt", "source"
# Kinds of inputs, each with the words for it in a message.
FORMS = {
    IMAGE: "images",
    ROW: "rows of a table",
    SERIES: "time series",
    TEXT: "lines of text to classify",
    PROMPT: "lines of text to continue",
    SOURCE: "lines of text to translate",
    ARRAY: "arrays",
}
TOKENS = ("tokens", "source", "target")  # entries that hold ids of a vocabulary


class Inputs(NamedTuple):
    """Inputs that a model takes.

    Attributes:
      form: kind of the inputs, one of FORMS.
      entries: shape of one example and type of each entry of a batch that the model reads.
      spec: description of the data that the model was trained on.
      delimiter: separator of the cells of the table that the model was trained on.
    """

    form: str
    entries: dict[str, jax.ShapeDtypeStruct]
    spec: DataSpec
    delimiter: str = ","

    @property
    def entry(self) -> jax.ShapeDtypeStruct:
        """The entry of a model that reads only one."""
        return next(iter(self.entries.values()))

    @property
    def is_forecast(self) -> bool:
        """True if the answer to a window of a series is of the positions after it."""
        return self.form == SERIES and "y" in {element.name for element in self.spec.elements}


def inputs_of(predict: Predict, spec: DataSpec) -> Inputs:
    """Finds out which inputs a model takes.

    Args:
      predict: the model.
      spec: description of the data that it was trained on.
    """
    batched = predict.inputs(spec.example())
    entries = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in batched.items()}
    return Inputs(_form(predict, entries, spec), entries, spec)


def _form(predict: Predict, entries: dict[str, jax.ShapeDtypeStruct], spec: DataSpec) -> str:
    if spec.tokenizer is not None:
        if predict.decoder is not None:
            return SOURCE if predict.decoder.translates else PROMPT
        if "tokens" in entries and not entries.keys() - {"tokens", "length"}:
            return TEXT
    if len(entries) != 1 or entries.keys() & {name for name, *_ in predict.extra}:
        return ARRAY
    ((shape, dtype),) = ((x.shape, x.dtype) for x in entries.values())
    if dtype == np.uint8 and len(shape) == 3 and shape[2] in (1, 3):
        return IMAGE
    if predict.kind == "numbers" and len(shape) == 2 and shape[1] == len(spec.columns):
        return SERIES
    return ROW if dtype == np.float32 and len(shape) == 1 else ARRAY


def describe(inputs: Inputs) -> str:
    """Words for the inputs that a model takes, for a message."""
    arrays = describe_arrays(inputs)
    if inputs.form == ARRAY:
        return arrays
    columns = shortened(", ".join(inputs.spec.columns), 300)
    if inputs.form == ROW and columns:
        return f"rows of a table with the columns {columns}"
    if inputs.form == SERIES:
        return f"files of CSV with the columns {columns} in the order of time, or {arrays}"
    return f"{FORMS[inputs.form]}, or {arrays}"


def describe_arrays(inputs: Inputs) -> str:
    """Words for the arrays that a model takes, with their shapes."""
    return f"arrays {', '.join(f'{name} {_shape(x)}' for name, x in inputs.entries.items())}"


def _shape(entry: jax.ShapeDtypeStruct) -> str:
    return f"{entry.dtype} [{', '.join(['N', *map(str, entry.shape)])}]"


def to_array(given: Any) -> np.ndarray:
    """Converts anything to an array.

    Raises:
      UserError: it is not one.
    """
    try:
        return np.asarray(given)
    except Exception as error:  # any object may be given
        raise UserError(
            f"a {type(given).__name__} is not an array ({first_line(error)})"
        ) from error


def check_arrays(inputs: Inputs, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Checks arrays in the data set's own format against the entries that a model reads.

    A single example gets a leading axis. Integers of another size and floats of another precision
    are converted.

    Args:
      inputs: inputs that the model takes.
      arrays: arrays [N, ...] or [...] by entry; other entries are left out.

    Returns:
      Arrays [N, ...] by entry.

    Raises:
      UserError: an entry is missing, or has another shape, another type or values out of range.
    """
    checked: dict[str, np.ndarray] = {}
    for name, entry in inputs.entries.items():
        if name not in arrays:
            raise UserError(
                f"no {name!r} among {shortened(', '.join(map(str, arrays)))}: give {_shape(entry)}"
            )
        array = to_array(arrays[name])
        if array.shape == entry.shape:
            array = array[None]
        if array.shape[1:] != entry.shape or array.ndim != len(entry.shape) + 1:
            raise UserError(
                f"{name!r} has the shape {shortened(array.shape)}: give {_shape(entry)}, or one "
                "example without N"
            )
        checked[name] = _cast(name, array, entry, inputs.spec)
    counts = {name: len(array) for name, array in checked.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        sizes = ", ".join(f"{count:,} of {name}" for name, count in counts.items())
        raise UserError(f"{sizes}: give the same number of each, at least one")
    return checked


def _cast(name: str, array: np.ndarray, entry: jax.ShapeDtypeStruct, spec: DataSpec) -> np.ndarray:
    """Converts an array to the type of an entry.

    Raises:
      UserError: that would change a value, other than by rounding.
    """
    wanted = np.dtype(entry.dtype)
    integers = np.issubdtype(wanted, np.integer)
    kinds = "biu" if integers else "biuf" if wanted != np.bool_ else "b"
    if array.dtype.kind not in kinds:
        raise UserError(f"{name!r} is {array.dtype}: give {_shape(entry)}")
    if integers and array.size:
        limits = np.iinfo(wanted)
        low, high = int(limits.min), int(limits.max)
        if name in TOKENS and spec.vocabulary:
            low, high = 0, spec.vocabulary - 1
        least, most = int(array.min()), int(array.max())
        if least < low or most > high:
            raise UserError(
                f"{name!r} has values from {least:,} to {most:,}: give some from {low:,} to "
                f"{high:,}"
            )
    with np.errstate(over="ignore"):
        converted = array.astype(wanted)
    if wanted.kind == "f" and (wrong := array[np.isinf(converted)]).size:
        raise UserError(
            f"{name!r} holds {wrong[0]}: give numbers within float32, or NaN where one is missing"
        )
    return converted


def stack(examples: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Stacks examples along a new leading axis."""
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
