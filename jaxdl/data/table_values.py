"""Values of a table of one's own: its target, and the array of its columns.

Shapes: N rows of D columns, K classes.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from jaxdl.console import say
from jaxdl.data.table_columns import (
    Column,
    Table,
    is_mistyped,
    number,
    number_text,
    quoted,
    with_texts,
)
from jaxdl.data.table_files import Rejected
from jaxdl.errors import UserError, shortened

TARGET_TYPES = ("auto", "class", "number")
FEW = 10  # whole numbers of a target that are taken for classes
CLASSES = 1000
CATEGORIES = 10_000  # of all columns together
LONGEST = 200  # characters of a category or a class
NO_NUMBER = "is not a number of at most 1e30"


class Target(NamedTuple):
    """Column to predict.

    Attributes:
      values: classes, int32 [N], or numbers, float64 [N].
      valid: False for a row that is rejected, bool [N].
      classes: names of the classes; empty for numbers.
    """

    values: np.ndarray
    valid: np.ndarray
    classes: tuple[str, ...]


class Features(NamedTuple):
    """Columns that the model reads.

    Attributes:
      x: float32 [N, D]; a category is its index, and a missing value is NaN.
      names: names of the columns.
      categories: names of the categories of each categorical column, by its name.
    """

    x: np.ndarray
    names: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]


def reject(
    table: Table,
    name: str,
    bad: np.ndarray,
    fault: str,
    rejected: Rejected,
    way_out: str = "correct it",
) -> None:
    """Rejects rows.

    Args:
      table: the table.
      name: column that they are rejected for.
      bad: True for these rows, bool [N].
      fault: what is wrong, as the end of the message.
      rejected: receives the rows.
      way_out: advice besides leaving rows out.

    Raises:
      UserError: there are some, and they are not to be left out.
    """
    if bad.any():
        row = int(np.argmax(bad))
        value = shortened(repr(table.columns[name].text(row)))
        text = f"{table.place(row)}, column {shortened(name)}: {value} {fault}"
        rejected.add(text, int(bad.sum()), way_out)


def target(table: Table, name: str, kind: str, rejected: Rejected) -> Target:
    """Reads the column to predict.

    Texts are classes, unless the column has numbers but for a few cells. Numbers are classes if
    they are whole and at most FEW different ones.

    Args:
      table: the table.
      name: the column.
      kind: one of TARGET_TYPES; other than `auto`, it overrides this rule.
      rejected: receives rows without a target.

    Raises:
      UserError: a row has none, or the number of classes is out of range.
    """
    column = table.columns[name]
    reject(table, name, column.missing, "is missing, and it is the target", rejected)
    if column.missing.all():
        raise UserError(f"--target={shortened(name)}: all values are missing: name another column")
    numbers = np.unique(column.numbers[~column.missing & ~column.invalid()])
    is_number = not column.invalid().any()
    few = is_number and len(numbers) <= FEW and bool(np.all(numbers == np.round(numbers)))
    mistyped = is_mistyped(column, ~column.missing)
    if kind == "number" or (kind == "auto" and (mistyped or (is_number and not few))):
        way_out = "correct it, give --target_type=class" if mistyped else "correct it"
        reject(table, name, column.invalid(), NO_NUMBER, rejected, way_out)
        return Target(column.numbers, ~np.isnan(column.numbers), ())
    if is_number:  # "1" and "1.0" are one class
        codes = np.searchsorted(numbers, column.numbers)
        classes = tuple(map(number_text, numbers))
    else:
        classes = tuple(sorted(column.texts))
        place = {text: n for n, text in enumerate(classes)}
        codes = np.array([place[text] for text in column.texts])[column.codes]
    if not 2 <= len(classes) <= CLASSES:
        raise UserError(
            f"--target={shortened(name)} has {len(classes):,} classes: the limits are 2 and "
            f"{CLASSES:,}; name another column, or give --target_type=number for numbers"
        )
    _check_lengths(name, classes)
    return Target(np.where(column.missing, 0, codes).astype(np.int32), ~column.missing, classes)


def numeric_names(
    columns: dict[str, Column], rows: np.ndarray, forced: Collection[str], others: Collection[str]
) -> list[str]:
    """Names of the columns whose values are numbers, but for mistyped ones.

    Args:
      columns: columns by name.
      rows: rows that decide, bool [N]: those of the file that the training rows are drawn from, so
        that the draw does not matter.
      forced: names of columns that are numeric in any case.
      others: names of columns that are not.
    """
    numeric = []
    for name, column in columns.items():
        are_numbers = not column.invalid()[rows].any() or is_mistyped(column, rows)
        if name in forced or (name not in others and are_numbers):
            numeric.append(name)
        elif name not in others:
            _warn_of_numbers(name, column, rows)
    return numeric


def _warn_of_numbers(name: str, column: Column, rows: np.ndarray) -> None:
    """Prints a line if most values of a column of categories are numbers."""
    assert column.codes is not None
    used = np.unique(column.codes[rows & ~column.missing])
    texts = [column.texts[code] for code in used]
    others = [text for text in texts if np.isnan(number(text))]
    if 2 * len(others) < len(texts):
        say(
            f"column {shortened(name)} has categories, as {shortened(repr(others[0]))} is not a "
            f"number: --numeric={shortened(name)} refuses it"
        )


def features(
    columns: dict[str, Column], numeric: Collection[str], train: np.ndarray, forced: Collection[str]
) -> Features:
    """Makes the array of all columns.

    Columns without a value in training are left out. A category that is in no training row counts
    as missing.

    Args:
      columns: columns by name.
      numeric: names of the numeric ones.
      train: training rows.
      forced: names of the columns that may have as many categories as rows.

    Raises:
      UserError: there are too many categories, or no column is left.
    """
    arrays, categories = {}, {}
    for name, column in columns.items():
        if column.missing[train].all():
            say(f"column {shortened(name)} has no value in training, and is left out")
        elif name in numeric:
            arrays[name] = column.numbers.astype(np.float32)
        else:
            arrays[name], categories[name] = _indices(name, with_texts(column), train)
    if not arrays:
        raise UserError("no column has a value in training: check --target and --leave_out")
    present = {name: int((~columns[name].missing[train]).sum()) for name in categories}
    _check_categories(categories, present, forced)
    return Features(np.stack(list(arrays.values()), axis=1), tuple(arrays), categories)


def _indices(name: str, column: Column, train: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Index of each value among the sorted categories of the training rows, float32 [N]."""
    assert column.codes is not None
    present = np.unique(column.codes[train][~column.missing[train]])
    used = sorted(present, key=lambda code: column.texts[code])
    index = np.full(len(column.texts) + 1, np.nan, np.float32)  # the last is that of code -1
    index[used] = np.arange(len(used))
    values = index[column.codes]
    unknown = int((np.isnan(values) & ~column.missing).sum())
    if unknown:
        say(
            f"column {shortened(name)}: {unknown:,} values are in no training row, and count as "
            "missing"
        )
    return values, tuple(column.texts[code] for code in used)


def _check_categories(
    categories: dict[str, tuple[str, ...]], present: dict[str, int], forced: Collection[str]
) -> None:
    """Checks the numbers and lengths of categories.

    Raises:
      UserError: a column tells most rows apart, or there are too many categories, or a long one.
    """
    own = [
        quoted(name)
        for name, texts in categories.items()
        if len(texts) > 20 and 2 * len(texts) > present[name] and name not in forced
    ]
    if own:
        names = shortened(",".join(own), 300)
        raise UserError(
            f"most rows have a text of their own in {names}: leave such columns out by "
            f"--leave_out={names}, or keep them by --categorical"
        )
    total = sum(map(len, categories.values()))
    if total > CATEGORIES:
        most = max(categories, key=lambda name: len(categories[name]))
        raise UserError(
            f"the columns have {total:,} categories, {len(categories[most]):,} of them in "
            f"{shortened(most)}: the limit is {CATEGORIES:,}; leave columns out by --leave_out"
        )
    for name, texts in categories.items():
        _check_lengths(name, texts)


def _check_lengths(name: str, texts: Sequence[str]) -> None:
    longest = max(texts, key=len)
    if len(longest) > LONGEST:
        raise UserError(
            f"column {shortened(name)} has a text of {len(longest):,} characters: the limit of "
            f"categories and classes is {LONGEST}; leave the column out by --leave_out"
        )


def statistics(x: np.ndarray, categorical: Sequence[bool]) -> dict[str, np.ndarray]:
    """Constants of the training rows, which ignore missing values.

    Args:
      x: training rows, float32 [N, D].
      categorical: True for a column of categories, bool [D].

    Returns:
      `mean` and `std` [D], 0 and 1 for categories, and `missing` [D], the share of missing values.
      The deviation of a constant column is 1.
    """
    wide = x.astype(np.float64)
    mean, std = np.nanmean(wide, axis=0), np.nanstd(wide, axis=0)
    std[np.nanmax(x, axis=0) == np.nanmin(x, axis=0)] = 1
    mean[np.array(categorical)], std[np.array(categorical)] = 0, 1
    return {"mean": mean, "std": std, "missing": np.isnan(x).mean(axis=0)}
