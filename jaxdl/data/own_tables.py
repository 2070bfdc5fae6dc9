"""Tables of one's own in CSV or Parquet, as data sets.

Shapes: N rows of D columns.
"""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdl.config import absolute
from jaxdl.console import say
from jaxdl.data import table_files, table_splits, table_values
from jaxdl.data.batches import Dataset, Split
from jaxdl.data.describe import describe
from jaxdl.data.table_columns import ROW_NAMES, Table, join, quoted, with_texts
from jaxdl.data.table_files import Rejected, Source
from jaxdl.data.table_values import Target
from jaxdl.errors import UserError, shortened


class Options(NamedTuple):
    """Reading and splitting of a table.

    Attributes:
      target: column to predict.
      target_type: one of `table_values.TARGET_TYPES`.
      numeric: columns that are numbers, separated by commas.
      categorical: columns that are categories, separated by commas.
      leave_out: columns that are not used, separated by commas.
      group: column whose rows of one value stay in one split; may be empty.
      delimiter: one of `table_columns.DELIMITERS`.
      validation_fraction: fraction of all rows for validation.
      test_fraction: fraction of all rows for the test.
      on_bad_example: `error` or `skip`, for a row that cannot be used.
    """

    target: str
    target_type: str = "auto"
    numeric: str = ""
    categorical: str = ""
    leave_out: str = ""
    group: str = ""
    delimiter: str = "comma"
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    on_bad_example: str = "error"


class OwnTable(NamedTuple):
    """Table that is read, split and encoded.

    Attributes:
      name: name of the data set.
      splits: {"x": float32 [N, D], "y": int32 or float32 [N]} by name, with all columns in `x`: a
        category is its index in `fields["categories"]`, and a missing value is NaN.
      fields: other fields of `DataSpec`.
      sha256: SHA-256 of the bytes of the files, and of the way they are read and split.
    """

    name: str
    splits: dict[str, Split]
    fields: dict[str, Any]
    sha256: str

    def constants(self, train: Split) -> dict[str, np.ndarray]:
        """Constants of the training split; see `table_values.statistics`."""
        names, categories = self.fields["columns"], dict(self.fields["categories"])
        return table_values.statistics(train["x"], [name in categories for name in names])

    def fingerprint(self) -> str:
        """Returns `sha256`."""
        return self.sha256


def load(path: str, options: Options, seed: int) -> Dataset:
    """Loads a table as a data set.

    Args:
      path: a CSV or Parquet file, or a folder; see `table_files.find`.
      options: reading and splitting.
      seed: seed of the splits.

    Returns:
      The data set, with the splits of `OwnTable`. If y is a number, "centre" [N] is its mean over
      the split, which R² refers to, and there are the constants `y_mean` and `y_std`.

    Raises:
      UserError: as of `read`.
    """
    table = read(path, options, seed)
    splits = [table.splits[split] for split in table_files.SPLITS]
    constants = table.constants(splits[0])
    if not table.fields["classes"]:
        means = [split["y"].astype(np.float64).mean() for split in splits]
        splits = [
            split | {"centre": np.full(len(split["y"]), mean, np.float32)}
            for split, mean in zip(splits, means, strict=True)
        ]
        y_std = splits[0]["y"].astype(np.float64).std()
        constants |= {"y_mean": means[0], "y_std": np.maximum(y_std, 1e-12)}
    fields = {"name": table.name, "version": "1", **table.fields, "constants": constants}
    # `missing` decides which inputs there are, so it is a constant of the program.
    fields["operands"] = tuple(name for name in constants if name != "missing")
    return Dataset(describe(splits[0], fingerprint=table.sha256, **fields), *splits)


def read(path: str, options: Options, seed: int) -> OwnTable:
    """Reads a table, splits it and encodes its columns.

    A folder's files are its splits. One file is split by share: classes keep their proportions, and
    the rows of a group stay together.

    Args:
      path: a CSV or Parquet file, or a folder; see `table_files.find`.
      options: reading and splitting.
      seed: seed of the splits.

    Raises:
      UserError: there is no such table, it has no such column, or a row or a split of it cannot be
        used.
    """
    if not options.target:
        raise UserError(f"--dataset={path} without --target: name the column to predict")
    place = Path(absolute(path, "dataset"))
    rejected = Rejected(options.on_bad_example == "skip")
    sources = table_files.find(place)
    table = join([table_files.read(one, options.delimiter, rejected) for one in sources.values()])
    columns = {name: table.columns[name] for name in _input_names(table, options)}
    target = table_values.target(table, options.target, options.target_type, rejected)
    rows = _split(table, list(sources), target, options, seed, rejected)
    forced = columns_of(options.numeric), columns_of(options.categorical)
    decisive = _used(table, rows) & (table.files == 0)  # the first file has the training rows
    numeric = table_values.numeric_names(columns, decisive, *forced)
    for name in numeric:
        bad = columns[name].invalid() & _used(table, rows)
        way_out = "correct it, leave it empty"
        if name not in forced[0]:
            way_out += f", give --categorical={shortened(quoted(name))}"
        table_values.reject(table, name, bad, table_values.NO_NUMBER, rejected, way_out)
        rows = {split: part[~bad[part]] for split, part in rows.items()}
    table_splits.check(rows, target)
    features = table_values.features(columns, numeric, rows["train"], forced[1])
    if rejected.count:
        say(f"{place.name}: {rejected.count:,} rows are left out; first: {rejected.first}")
    dtype, count = (np.int32 if target.classes else np.float32), len(target.classes)
    sizes = ", ".join(f"{len(rows[split]):,}" for split in table_files.SPLITS)
    kind = f"{count} classes" if count else "a number"
    return OwnTable(
        place.name,
        {
            split: {"x": features.x[part], "y": target.values[part].astype(dtype)}
            for split, part in rows.items()
        },
        {
            "source": f"{place}: {sizes} rows of {len(features.names)} columns to predict "
            f"{shortened(options.target)}, {kind}",
            "columns": features.names,
            "categories": tuple(features.categories.items()),
            "classes": target.classes,
            "num_classes": count,
        },
        _fingerprint(sources, options),
    )


def columns_of(text: str) -> list[str]:
    """Splits the value of a flag into names of columns; one with a comma is in double quotes.

    >>> columns_of('age, "height, cm"')
    ['age', 'height, cm']
    """
    rows = list(csv.reader([text], skipinitialspace=True))
    return [name.strip() for name in rows[0] if name.strip()] if rows else []


def _input_names(table: Table, options: Options) -> list[str]:
    """Names of the columns that are the model's input.

    Raises:
      UserError: a flag names a column that the table lacks, two flags exclude each other, or no
        column is left.
    """
    numeric, categorical, left_out = map(
        columns_of, (options.numeric, options.categorical, options.leave_out)
    )
    group = [options.group] if options.group else []
    flags = {"target": [options.target], "group": group, "leave_out": left_out}
    for flag, names in {**flags, "numeric": numeric, "categorical": categorical}.items():
        for name in names:
            if name not in table.columns:
                raise UserError(
                    f"--{flag}={shortened(name)}: {table.places[0][0]} has no such column: choose "
                    f"from {shortened(', '.join(table.columns), 300)}"
                )
    both = [*(set(numeric) & set(categorical)), *({options.target} & {*group, *left_out})]
    if both:
        raise UserError(f"two flags name column {shortened(both[0])}: leave it out of one of them")
    row_names = [name for name in table.columns if name in ROW_NAMES]
    if row_names:
        say(f"{table.places[0][0]}: the column of row names, {row_names[0]!r}, is left out")
    unused = {options.target, *group, *left_out, *row_names}
    inputs = [name for name in table.columns if name not in unused]
    if not inputs:
        raise UserError(f"{table.places[0][0]} has no column besides {', '.join(table.columns)}")
    return inputs


def _split(
    table: Table,
    files: list[str],
    target: Target,
    options: Options,
    seed: int,
    rejected: Rejected,
) -> dict[str, np.ndarray]:
    """Rows of each split.

    Raises:
      UserError: a split would be too small, or a row has no group.
    """
    usable, groups = target.valid, None
    if options.group:
        column = with_texts(table.columns[options.group])
        bad = column.missing & usable
        table_values.reject(table, options.group, bad, "is missing, and it is the group", rejected)
        usable, groups = usable & ~column.missing, column.codes
    parts = table_splits.by_file(table.files, files, np.flatnonzero(usable))
    if "validation" in parts:
        return parts
    fractions = {"test": options.test_fraction, "validation": options.validation_fraction}
    if "test" in parts:
        del fractions["test"]
    rows = parts.pop("train" if "train" in parts else "")
    labels = target.values[rows] if target.classes else None
    of_groups = None if groups is None else groups[rows]
    return parts | table_splits.by_share(rows, fractions, seed, labels, of_groups)


def _used(table: Table, rows: dict[str, np.ndarray]) -> np.ndarray:
    """Rows that are in a split, bool [N]."""
    return np.isin(np.arange(len(table.lines)), np.concatenate(list(rows.values())))


def _fingerprint(sources: dict[str, Source], options: Options) -> str:
    """SHA-256 of the bytes of the files, and of the way they are read and split."""
    digests = {name: [source.ending, source.sha256()] for name, source in sources.items()}
    return hashlib.sha256(json.dumps([digests, options._asdict()]).encode()).hexdigest()
