"""Reading of Parquet tables, by pyarrow."""

from typing import Any

import numpy as np

from jaxdl.data.table_columns import COLUMNS, Column, Table, check_names, number_column, text_column
from jaxdl.errors import UserError, first_line, importing, shortened

CELLS = 500_000_000
UNPACKED = 1 << 33  # bytes of a table that is unpacked


def read(name: str, content: bytes) -> Table:
    """Reads a Parquet table of numbers and texts; dates and truth values become texts.

    Args:
      name: name of the file in messages.
      content: its bytes.

    Raises:
      UserError: pyarrow is not installed; the file is damaged or too large; or a column has another
        type.
    """
    with importing("pyarrow"):
        import pyarrow as pa
        from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(content))
        described = file.metadata
        rows, width = described.num_rows, described.num_columns
        groups = [described.row_group(n) for n in range(described.num_row_groups)]
        unpacked = sum(group.total_byte_size for group in groups)
        if width > COLUMNS or rows * width > CELLS or unpacked > UNPACKED:
            raise UserError(
                f"{name} has {rows:,} rows and {width:,} columns in {unpacked >> 20:,} MiB: the "
                f"limits are {CELLS:,} fields, {COLUMNS:,} columns and {UNPACKED >> 20:,} MiB"
            )
        names = check_names(name, list(file.schema_arrow.names))
        table = file.read()
        columns = {
            column: _column(f"{name}, column {shortened(column)}", values.combine_chunks(), pa)
            for column, values in zip(names, table.columns, strict=True)
        }
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"{name} is not a whole Parquet file ({first_line(error)}): write it again"
        ) from error
    lines = np.arange(1, table.num_rows + 1)
    return Table(columns, lines, np.zeros(len(lines), np.int32), ((name, "row"),))


def _column(place: str, values: Any, pa: Any) -> Column:
    """Converts an Arrow array.

    Raises:
      UserError: its type is not supported.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    is_number = any(
        check(kind) for check in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    )
    if is_number:
        # A safe cast refuses integers beyond 2**53, of which float32 keeps no more anyway.
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return number_column(np.array(numbers, np.float64))
    if pa.types.is_null(kind):
        return number_column(np.full(len(values), np.nan))
    try:
        encoded = values.cast(pa.large_string()).dictionary_encode()
    except pa.ArrowException as error:
        raise UserError(
            f"{place} is of type {shortened(kind)}: write it as numbers or texts, or not at all"
        ) from error
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return text_column(codes.astype(np.int32), encoded.dictionary.to_pylist(), frozenset())
