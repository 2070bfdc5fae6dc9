"""Splits of a table: by its files, by share of its rows, or by share of its groups.

Shapes: N rows.
"""

import numpy as np

from jaxdl.data.batches import Split, split_validation
from jaxdl.data.table_files import SPLITS
from jaxdl.data.table_values import Target
from jaxdl.errors import UserError, shortened


def by_file(files: np.ndarray, names: list[str], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of each file.

    Args:
      files: number of each row's file, int [N].
      names: split that each file holds, or "" for one that holds all.
      rows: rows that can be used.
    """
    return {name: rows[files[rows] == n] for n, name in enumerate(names)}


def by_share(
    rows: np.ndarray,
    fractions: dict[str, float],
    seed: int,
    labels: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Draws held-out splits.

    Args:
      rows: rows to split, M of them.
      fractions: fraction of the rows, or of the groups, for each held-out split.
      seed: seed of the draw.
      labels: classes of the rows, int [M]; if given, each class keeps its share.
      groups: number of each row's group, int [M]; if given, rows of a group stay together, and
        `labels` is not used.

    Returns:
      The held-out splits and `train`, sorted.

    Raises:
      UserError: a split would have fewer than two rows, or no group.
    """
    unit_of_row = np.arange(len(rows))
    if groups is not None:
        unit_of_row, labels = np.unique(groups, return_inverse=True)[1], None
    units = np.arange(unit_of_row.max(initial=-1) + 1)
    counts = {split: round(len(units) * fraction) for split, fraction in fractions.items()}
    least = 2 if groups is None else 1  # R² of a single number is undefined
    if min(*counts.values(), len(units) - sum(counts.values())) < least:
        flags = " and ".join(f"--{name}_fraction={value}" for name, value in fractions.items())
        raise UserError(
            f"{flags} of {len(units):,} {'rows' if groups is None else 'groups'}: each split needs "
            f"at least {least}, so give other fractions"
        )
    # RandomState's streams are frozen for good (NEP 19); default_rng's may change.
    left: Split = {"unit": np.random.RandomState(seed).permutation(units)}
    drawn = {}
    for split, count in counts.items():
        order = left["unit"]
        by = None if labels is None else labels[order]
        left, drawn[split] = split_validation(left, count / len(order), by)
    drawn["train"] = left
    return {split: rows[np.isin(unit_of_row, chosen["unit"])] for split, chosen in drawn.items()}


def check(rows: dict[str, np.ndarray], target: Target) -> None:
    """Checks the targets of the splits.

    Args:
      rows: rows of each split.
      target: the target of all rows.

    Raises:
      UserError: a split has fewer than two rows, a class has no training row, or all targets of a
        split are the same number.
    """
    for split in SPLITS:
        values = target.values[rows[split]]
        if len(values) < 2:
            raise UserError(f"the {split} split has {len(values)} rows: give it at least 2")
        if not target.classes and np.ptp(values) == 0:
            raise UserError(
                f"the target is {values[0]:g} in all rows of the {split} split: name another "
                "--target, or give other fractions"
            )
    counts = np.bincount(target.values[rows["train"]], minlength=1) if target.classes else [1]
    absent = set(range(len(target.classes))) - set(np.flatnonzero(counts))
    if target.classes and absent:
        name = shortened(target.classes[min(absent)])
        raise UserError(
            f"class {name!r} of the target is in no training row: add such rows, or leave out "
            "those there are"
        )
