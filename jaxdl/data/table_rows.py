"""Rows of a table as texts, encoded by a description alone.

Shapes: N rows of D columns.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdl.data.spec import DataSpec
from jaxdl.data.table_columns import MISSING, ROW_NAMES, number, number_text
from jaxdl.errors import UserError, shortened


def encode(
    rows: Sequence[Mapping[str, Any]], spec: DataSpec, ignored: Collection[str] = ()
) -> np.ndarray:
    """Encodes rows as a model's input `x`.

    Args:
      rows: values by column: texts as in a CSV file, numbers, or None for a missing value.
      spec: description of the table that the model was trained on.
      ignored: names of columns that may be there and are not read, such as the target.

    Returns:
      float32 [N, D], with the columns in the order of the description. A category is its index
      there. A missing value, and a category that the training rows lack, is NaN.

    Raises:
      UserError: a row lacks a column or has an unknown one, or a value is not a number in a numeric
        column.
    """
    x = np.empty((len(rows), len(spec.columns)), np.float32)
    for n, row in enumerate(rows):
        try:
            x[n] = encode_row(row, spec, ignored)
        except UserError as error:
            raise UserError(f"row {n + 1}: {error}") from error
    return x


def encode_row(
    row: Mapping[str, Any], spec: DataSpec, ignored: Collection[str] = ()
) -> list[float]:
    """Encodes a row, see `encode`: a number for each column of the description.

    Raises:
      UserError: as in `encode`.
    """
    unknown = row.keys() - {*spec.columns, *ignored, *ROW_NAMES}
    if unknown:
        raise UserError(
            f"a column {shortened(repr(min(unknown)))}, which the run's table lacks: give "
            f"{shortened(', '.join(spec.columns), 300)}"
        )
    missing = [name for name in spec.columns if name not in row]
    if missing:
        raise UserError(
            f"no column {shortened(repr(missing[0]))}: give it, empty for a missing value"
        )
    categories = dict(spec.categories)
    return [_encode(row[name], categories.get(name), name) for name in spec.columns]


def _encode(value: Any, categories: tuple[str, ...] | None, name: str) -> float:
    """Encodes a value.

    Args:
      value: the value.
      categories: names of the categories; None for a numeric column.
      name: name of its column.

    Raises:
      UserError: it is not a number in a numeric column.
    """
    text = _text(value)
    if categories is not None and text in categories:
        return float(categories.index(text))
    if text in MISSING or categories is not None:
        return np.nan
    result = number(text)
    if np.isnan(result):
        raise UserError(
            f"column {shortened(name)}: {shortened(repr(text))} is not a number: give one "
            "of at most 1e30, or nothing for a missing value"
        )
    return result


def _text(value: Any) -> str:
    """Text of a value, as a CSV file has it."""
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, int | float | np.number):
        return "" if np.isnan(value) else number_text(float(value)) if np.isfinite(value) else "inf"
    return str(value).strip()
