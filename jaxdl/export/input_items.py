"""Encoding of what a user gives a trained model: images, paths, rows and texts become arrays.

The description of the data set decides alone how an input is encoded; the data are not needed.

Shapes: N examples, S pixels per side, C channels, D columns, T tokens.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.data import pixels, table_rows
from jaxdl.errors import UserError, first_line
from jaxdl.export.inputs import (
    IMAGE,
    PROMPT,
    ROW,
    SERIES,
    SOURCE,
    TEXT,
    Inputs,
    check_arrays,
    describe,
    describe_arrays,
    stack,
    to_array,
)


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
        return check_arrays(inputs, {next(iter(inputs.entries)): to_array(given)})
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
    takes = (
        describe_arrays(inputs) if inputs.form == SERIES else describe(inputs)
    )  # files have no encoding
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
