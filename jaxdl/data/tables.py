"""Small tables of measurements that scikit-learn carries, split anew by every seed.

Shapes: N rows of D columns.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdl.data.batches import Dataset, Split, size
from jaxdl.data.spec import describe
from jaxdl.errors import UserError


def iris(seed: int, *, validation_fraction: float = 0.16, test_fraction: float = 0.2) -> Dataset:
    """150 irises of three species (Anderson, 1935; Fisher, 1936): sepals and petals in cm.

    Each species keeps its share in every split.
    """
    from sklearn.datasets import load_iris

    source = "embedded: 150 irises that scikit-learn carries"
    return _table("iris", load_iris, source, seed, (validation_fraction, test_fraction))


def diabetes(
    seed: int, *, validation_fraction: float = 0.16, test_fraction: float = 0.2
) -> Dataset:
    """442 patients: ten measurements, and how far diabetes went in a year (Efron et al., 2004)."""
    from sklearn.datasets import load_diabetes

    source = "embedded: 442 patients with diabetes that scikit-learn carries"
    fractions = (validation_fraction, test_fraction)
    return _table("diabetes", lambda: load_diabetes(scaled=False), source, seed, fractions)


def _table(
    name: str, load: Callable[[], Any], source: str, seed: int, fractions: tuple[float, float]
) -> Dataset:
    """Splits a bunch of scikit-learn's into training, validation and test.

    Each is {"x": float32 [N, D], "y": [N]}: the raw columns, and a class (int32) or a number. Where
    y is a number (float32), "centre" [N] has its mean over the split, which R² refers to.

    Raises:
      UserError: a split would be empty.
    """
    from sklearn.model_selection import train_test_split

    bunch = load()
    classes = tuple(str(c) for c in getattr(bunch, "target_names", ()))
    whole = {
        "x": np.asarray(bunch.data, np.float32),
        "y": np.asarray(bunch.target, np.int32 if classes else np.float32),
    }
    fingerprint = hashlib.sha256(whole["x"].tobytes() + whole["y"].tobytes()).hexdigest()
    rows = np.arange(size(whole))
    held = [round(len(rows) * fraction) for fraction in fractions]
    least = max(len(classes), 2)  # R squared of one number is none
    if min(held) < least or len(rows) - sum(held) < least:
        flags = "--validation_fraction={} and --test_fraction={}".format(*fractions)
        raise UserError(
            f"{flags} of {len(rows)} rows: each split needs at least {least}, so give others"
        )
    parts = []
    for count in held:
        kinds = whole["y"][rows] if classes else None
        rows, part = train_test_split(rows, test_size=count, random_state=seed, stratify=kinds)
        parts.append(np.sort(part))

    def split(rows: np.ndarray) -> Split:
        taken = {key: array[rows] for key, array in whole.items()}
        if not classes:
            taken["centre"] = np.full(len(rows), taken["y"].astype(np.float64).mean(), np.float32)
        return taken

    return dataset(
        [split(np.sort(rows)), split(parts[0]), split(parts[1])],
        name=name,
        version="1",
        fingerprint=fingerprint,
        source=f"{source}; split by seed {seed}",
        columns=tuple(str(c) for c in bunch.feature_names),
        classes=classes,
        num_classes=len(classes),
    )


def dataset(splits: list[Split], **fields: Any) -> Dataset:
    """A table as a data set.

    Its constants are `mean` and `std` [D] of the training split's columns, and where y is a number
    `y_mean` and `y_std`.

    Args:
      splits: training, validation and test: {"x": float32 [N, D], "y": [N]} each.
      fields: of its `DataSpec`.
    """
    x, y = splits[0]["x"].astype(np.float64), splits[0]["y"]
    constants = {"mean": x.mean(0), "std": np.maximum(x.std(0), 1e-12)}
    if y.dtype == np.float32:
        constants |= {"y_mean": y.mean(), "y_std": np.maximum(y.std(), 1e-12)}
    return Dataset(describe(splits[0], constants=constants, **fields), *splits)
