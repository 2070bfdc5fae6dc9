"""Inputs of a trained model: images, rows, texts and arrays, as examples of its data set.

The description of the data set decides alone how an input is encoded; the data are not needed.

Shapes: N examples, S pixels per side, C channels, D columns, T tokens.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl.data import pixels, table_rows
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
    arrays = _arrays(inputs)
    if inputs.form == ARRAY:
        return arrays
    columns = shortened(", ".join(inputs.spec.columns), 300)
    if inputs.form == ROW and columns:
        return f"rows of a table with the columns {columns}"
    if inputs.form == SERIES:
        return f"files of CSV with the columns {columns} in the order of time, or {arrays}"
    return f"{FORMS[inputs.form]}, or {arrays}"


def _arrays(inputs: Inputs) -> str:
    return f"arrays {', '.join(f'{name} {_shape(x)}' for name, x in inputs.entries.items())}"


def _shape(entry: jax.ShapeDtypeStruct) -> str:
    return f"{entry.dtype} [{', '.join(['N', *map(str, entry.shape)])}]"


def to_batch(inputs: Inputs, given: Any) -> dict[str, np.ndarray] | list[Any]:
    """Converts the inputs that a user gives in Python.

    Args:
      inputs: inputs that the model takes.
      given: arrays, images, paths of images, texts or rows; one of them, or many. Pandas' data
        frames count as rows.

    Returns:
      Arrays [N, ...] by entry; of texts to continue or to translate, the list of texts.

    Raises:
      UserError: the model does not take such inputs.
    """
    if hasattr(given, "to_dict") and hasattr(given, "columns"):  # a data frame of Pandas
        given = [{str(k): v for k, v in row.items()} for row in given.to_dict("records")]
    if getattr(getattr(given, "dtype", None), "kind", "") in ("U", "O"):  # an array of texts
        given = given.tolist()
    if isinstance(given, Mapping) and inputs.entries.keys() <= given.keys():
        return check_arrays(inputs, given)
    if _is_item(given):
        given = [given]
    if not isinstance(given, list | tuple) or _is_array(given):
        if len(inputs.entries) != 1:
            names = ", ".join(inputs.entries)
            raise UserError(f"one array, and the model reads {names}: give a dictionary of these")
        return check_arrays(inputs, {next(iter(inputs.entries)): _array(given)})
    if not given:
        raise UserError(f"no examples: give {describe(inputs)}")
    examples = []
    for n, item in enumerate(given, 1):
        try:
            examples.append(encode(inputs, item))
        except UserError as error:
            raise UserError(f"input {n}: {error}" if len(given) > 1 else str(error)) from error
    return list(given) if inputs.form in (PROMPT, SOURCE) else stack(examples)


def _is_array(given: Sequence[Any]) -> bool:
    """Returns True if a sequence is one array, such as of numbers or of arrays of one shape."""
    if any(map(_is_item, given)):
        return False
    return bool(given) and len({getattr(item, "shape", ()) for item in given}) == 1


def _is_item(given: Any) -> bool:
    """Returns True for an image, a path, a text or a row by name."""
    return isinstance(given, str | bytes | os.PathLike | Mapping) or hasattr(given, "getexif")


def _array(given: Any) -> np.ndarray:
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
        array = _array(arrays[name])
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


def encode(inputs: Inputs, item: Any) -> dict[str, Any]:
    """Encodes one image, row, text or array as an example.

    Args:
      inputs: inputs that the model takes.
      item: path or Pillow's image, values by column, text, or an array of one example.

    Returns:
      The arrays of one example by entry.

    Raises:
      UserError: the model does not take it, or it cannot be encoded.
    """
    if inputs.form not in (PROMPT, SOURCE) and len(inputs.entries) == 1 and not _is_item(item):
        arrays = check_arrays(inputs, {name: item for name in inputs.entries})
        if any(len(array) != 1 for array in arrays.values()):
            raise UserError(f"an array {list(np.shape(item))} in a list: give one example in each")
        return {name: array[0] for name, array in arrays.items()}
    if inputs.form == IMAGE and not isinstance(item, Mapping | bytes):
        return {name: read_image(item, x.shape) for name, x in inputs.entries.items()}
    if inputs.form == ROW and isinstance(item, Mapping):
        return {name: encode_row(item, inputs) for name in inputs.entries}
    if inputs.form in (TEXT, PROMPT, SOURCE) and isinstance(item, str):
        return _encode_text(item, inputs)
    takes = _arrays(inputs) if inputs.form == SERIES else describe(inputs)  # files have no encoding
    raise UserError(f"a {type(item).__name__}, and the model takes {takes}")


def _encode_text(text: str, inputs: Inputs) -> dict[str, Any]:
    from jaxdl.text import pairs, reviews  # images and tables start faster without them

    spec = inputs.spec
    assert spec.tokenizer is not None
    if not text:
        raise UserError("an empty text: give at least one character")
    try:
        text.encode()  # lone surrogates are of bytes that are not UTF-8
    except UnicodeEncodeError as error:
        raise UserError(f"not valid Unicode ({error.reason}): convert the text") from error
    if inputs.form == PROMPT:
        return {"tokens": np.asarray(spec.tokenizer.encode(text), np.int32)}
    if inputs.form == SOURCE:
        return {"source": pairs.encode(text, spec)}
    row = reviews.encode(text, spec)
    return {name: row[name].astype(x.dtype) for name, x in inputs.entries.items()}


def read_image(item: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Decodes and resizes an image like those of a folder that a model is trained on.

    Args:
      item: path of an image file, or an image of Pillow.
      shape: H, W and C, of 1 or 3.

    Returns:
      The image, uint8 [H, W, C].

    Raises:
      UserError: it is not a valid image.
    """
    height, width, channels = shape
    name = "the image"
    try:
        if isinstance(item, str | os.PathLike):
            name = str(item)
            image = pixels.read(Path(item), channels)
        else:
            image = pixels.to_array(item, channels)
        return pixels.resize(image, (height, width))
    except OSError as error:
        if error.filename is None:  # Pillow raised it
            raise _invalid_image(name, error) from error
        raise UserError(f"cannot read {name} ({error.strerror}): give another file") from error
    except Exception as error:  # decoders may raise any error on damaged bytes
        raise _invalid_image(name, error) from error


def _invalid_image(name: str, error: Exception) -> UserError:
    return UserError(
        f"{name} is not an image that can be read ({first_line(error)}): fix it or leave it out"
    )


def encode_row(row: Mapping[str, Any], inputs: Inputs) -> np.ndarray:
    """Encodes values by column as a row of the data set.

    A category is its index in the description. A missing value, and a category that the description
    lacks, is NaN. Other columns are not read.

    Args:
      row: texts as in a CSV file, numbers, or None, by column.
      inputs: inputs that the model takes.

    Returns:
      The row, float32 [D].

    Raises:
      UserError: a column is missing, or a value is not a number.
    """
    columns = columns_of(inputs)
    # Rows without names of columns, such as observations, are tables of numbers.
    spec = dataclasses.replace(inputs.spec, columns=columns)
    return np.asarray(table_rows.encode_row(row, spec, ignored=row.keys()), np.float32)


def columns_of(inputs: Inputs) -> tuple[str, ...]:
    """Names of the columns of a row; numbers from 1 on where the description has none."""
    count = inputs.entry.shape[0]
    columns = inputs.spec.columns
    return columns if len(columns) == count else tuple(str(n + 1) for n in range(count))
