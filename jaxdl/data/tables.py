"""Small tables of measurements that ship with scikit-learn; each seed gives another split.

Shapes: N rows of D columns.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdl.data.batches import Dataset, Split, size
from jaxdl.data.describe import describe
from jaxdl.errors import UserError


def iris(seed: int, *, validation_fraction: float = 0.16, test_fraction: float = 0.2) -> Dataset:
    """Iris data set: 150 flowers of three species (Anderson, 1935; Fisher, 1936).

    The columns are lengths and widths of sepals and petals in cm. Splits are stratified by species.

    Args:
      seed: seed of the splits.
      validation_fraction: fraction of all rows for validation.
      test_fraction: fraction of all rows for the test.

    Returns:
      The data set; see `dataset`.

    Raises:
      UserError: a split would be too small.
    """
    from sklearn.datasets import load_iris

    source = "embedded: 150 irises of scikit-learn"
    return _table("iris", load_iris, source, seed, (validation_fraction, test_fraction))


def diabetes(
    seed: int, *, validation_fraction: float = 0.16, test_fraction: float = 0.2
) -> Dataset:
    """Diabetes data set: 442 patients (Efron et al., 2004).

    The columns are ten measurements, the target is the progression of diabetes after one year.

    Args:
      seed: seed of the splits.
      validation_fraction: fraction of all rows for validation.
      test_fraction: fraction of all rows for the test.

    Returns:
      The data set; see `dataset`.

    Raises:
      UserError: a split would be too small.
    """
    from sklearn.datasets import load_diabetes

    source = "embedded: 442 patients with diabetes of scikit-learn"
    fractions = (validation_fraction, test_fraction)
    return _table("diabetes", lambda: load_diabetes(scaled=False), source, seed, fractions)


def breast_cancer(
    seed: int, *, validation_fraction: float = 0.1, test_fraction: float = 0.2
) -> Dataset:
    """Breast cancer data set: 569 tumours, benign or malignant (Street et al., 1993).

    The columns are 30 measurements of cell nuclei. Splits are stratified by class.

    Args:
      seed: seed of the splits.
      validation_fraction: fraction of all rows for validation.
      test_fraction: fraction of all rows for the test.

    Returns:
      The data set; see `dataset`.

    Raises:
      UserError: a split would be too small.
    """
    from sklearn.datasets import load_breast_cancer

    source = "embedded: 569 breast tumours of scikit-learn"
    fractions = (validation_fraction, test_fraction)
    return _table("breast_cancer", load_breast_cancer, source, seed, fractions)


def wine(seed: int, *, validation_fraction: float = 0.1, test_fraction: float = 0.2) -> Dataset:
    """Wine data set: 178 wines of three cultivars (Aeberhard & Forina, 1992).

    The columns are 13 chemical measurements. Splits are stratified by cultivar.

    Args:
      seed: seed of the splits.
      validation_fraction: fraction of all rows for validation.
      test_fraction: fraction of all rows for the test.

    Returns:
      The data set; see `dataset`.

    Raises:
      UserError: a split would be too small.
    """
    from sklearn.datasets import load_wine

    source = "embedded: 178 wines of scikit-learn"
    return _table("wine", load_wine, source, seed, (validation_fraction, test_fraction))


def _table(
    name: str, load: Callable[[], Any], source: str, seed: int, fractions: tuple[float, float]
) -> Dataset:
    """Splits a data set of scikit-learn into training, validation and test.

    Each split is {"x": float32 [N, D], "y": [N]}: the raw columns, and a class (int32) or a number
    (float32). For regression, "centre" [N] is the mean of y over the split, which R² refers to.

    Raises:
      UserError: a split would be too small.
    """
    from sklearn.model_selection import train_test_split

    bunch = load()
    classes = tuple(str(c) for c in getattr(bunch, "target_names", ()))
    table = {
        "x": np.asarray(bunch.data, np.float32),
        "y": np.asarray(bunch.target, np.int32 if classes else np.float32),
    }
    fingerprint = hashlib.sha256(table["x"].tobytes() + table["y"].tobytes()).hexdigest()
    rows = np.arange(size(table))
    held_out = [round(len(rows) * fraction) for fraction in fractions]
    least = max(len(classes), 2)  # R² of a single number is undefined
    if min(held_out) < least or len(rows) - sum(held_out) < least:
        flags = "--validation_fraction={} and --test_fraction={}".format(*fractions)
        raise UserError(
            f"{flags} of {len(rows)} rows: each split needs at least {least} rows, so give other "
            "fractions"
        )
    held_out_rows = []
    for count in held_out:
        labels = table["y"][rows] if classes else None
        rows, part = train_test_split(rows, test_size=count, random_state=seed, stratify=labels)
        held_out_rows.append(np.sort(part))

    def select(rows: np.ndarray) -> Split:
        split = {key: array[rows] for key, array in table.items()}
        if not classes:
            split["centre"] = np.full(len(rows), split["y"].astype(np.float64).mean(), np.float32)
        return split

    return dataset(
        [select(np.sort(rows)), select(held_out_rows[0]), select(held_out_rows[1])],
        name=name,
        version="1",
        fingerprint=fingerprint,
        source=f"{source}; split by seed {seed}",
        columns=tuple(str(c) for c in bunch.feature_names),
        classes=classes,
        num_classes=len(classes),
    )


def dataset(splits: list[Split], **fields: Any) -> Dataset:
    """Makes a data set of the splits of a table.

    The constants of its description are the `mean` and `std` [D] of the training split's columns
    and, if y is a number, `y_mean` and `y_std`. They are operands, as each seed has other splits.

    Args:
      splits: training, validation and test, {"x": float32 [N, D], "y": [N]} each.
      **fields: other fields of its `DataSpec`.

    Returns:
      The data set.
    """
    x, y = splits[0]["x"].astype(np.float64), splits[0]["y"]
    constants = {"mean": x.mean(0), "std": np.maximum(x.std(0), 1e-12)}
    if y.dtype == np.float32:
        constants |= {"y_mean": y.mean(), "y_std": np.maximum(y.std(), 1e-12)}
    spec = describe(splits[0], constants=constants, operands=tuple(constants), **fields)
    return Dataset(spec, *splits)


TABLES = (iris, diabetes, breast_cancer, wine)
