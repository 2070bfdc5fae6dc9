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
    indices = {
        name: {text: float(n) for n, text in enumerate(texts)} for name, texts in spec.categories
    }
    x = np.empty((len(rows), len(spec.columns)), np.float32)
    for n, row in enumerate(rows):
        unknown = row.keys() - {*spec.columns, *ignored, *ROW_NAMES}
        if unknown:
            raise UserError(
                f"row {n + 1} has a column {shortened(repr(min(unknown)))}, which the run's table "
                f"lacks: give {shortened(', '.join(spec.columns), 300)}"
            )
        for column, name in enumerate(spec.columns):
            if name not in row:
                raise UserError(
                    f"row {n + 1} has no column {shortened(repr(name))}: give it, empty for a "
                    "missing value"
                )
            x[n, column] = _encode(row[name], indices.get(name), n, name)
    return x


def _encode(value: Any, index: Mapping[str, float] | None, row: int, name: str) -> float:
    """Encodes a value.

    Args:
      value: the value.
      index: index of each category; None for a numeric column.
      row: number of its row.
      name: name of its column.

    Raises:
      UserError: it is not a number in a numeric column.
    """
    text = _text(value)
    if index is not None and text in index:
        return index[text]
    if text in MISSING or index is not None:
        return np.nan
    result = number(text)
    if np.isnan(result):
        raise UserError(
            f"row {row + 1}, column {shortened(name)}: {shortened(repr(text))} is not a number: "
            "give one, or nothing for a missing value"
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
