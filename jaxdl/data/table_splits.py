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
      fractions: fraction of the rows for each held-out split.
      seed: seed of the draw.
      labels: classes of the rows, int [M]; if given, each class keeps its share.
      groups: group of each row, int [M]; if given, whole groups of about as many rows are drawn,
        and `labels` is not used.

    Returns:
      The held-out splits and `train`, sorted.

    Raises:
      UserError: a split would have fewer than two rows, or no group.
    """
    counts = {split: round(len(rows) * fraction) for split, fraction in fractions.items()}
    flags = " and ".join(f"--{name}_fraction={value}" for name, value in fractions.items())
    if min(*counts.values(), len(rows) - sum(counts.values())) < 2:  # R² of one is undefined
        raise UserError(
            f"{flags} of {len(rows):,} rows: each split needs at least 2, so give other fractions"
        )
    # RandomState's streams are frozen for good (NEP 19); default_rng's may change.
    random = np.random.RandomState(seed)
    if groups is not None:
        return _by_group(rows, counts, random, groups)
    left: Split = {"row": random.permutation(len(rows))}
    drawn = {}
    for split, count in counts.items():
        by = None if labels is None else labels[left["row"]]
        left, drawn[split] = split_validation(left, count / len(left["row"]), by)
    drawn["train"] = left
    return {split: rows[np.sort(chosen["row"])] for split, chosen in drawn.items()}


def _by_group(
    rows: np.ndarray, counts: dict[str, int], random: np.random.RandomState, groups: np.ndarray
) -> dict[str, np.ndarray]:
    """Draws whole groups; see `by_share`.

    Raises:
      UserError: there are fewer groups than splits.
    """
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) <= len(counts):
        raise UserError(
            f"--group has {len(sizes)} values for {len(counts) + 1} splits: name another column"
        )
    left, drawn = random.permutation(len(sizes)), {}
    for n, (split, count) in enumerate(counts.items(), 1):
        # At least one group stays for each of the splits that follow.
        ends = np.cumsum(sizes[left])[: len(left) - (len(counts) + 1 - n)]
        chosen = 1 + int(np.argmin(np.abs(ends - count)))
        drawn[split], left = left[:chosen], left[chosen:]
    drawn["train"] = left
    return {split: rows[np.isin(groups, chosen)] for split, chosen in drawn.items()}


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
