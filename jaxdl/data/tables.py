"""Small tables of measurements that ship with scikit-learn; each seed gives another split.

Shapes: N rows of D columns.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from jaxdl.data import embedded
from jaxdl.data.batches import Dataset, Split, size
from jaxdl.data.describe import describe
from jaxdl.errors import UserError

# Names of the columns, which scikit-learn has in its code and not in its files.
IRIS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
DIABETES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
WINE = (
    *("alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols"),
    *("flavanoids", "nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue"),
    *("od280/od315_of_diluted_wines", "proline"),
)
NUCLEUS = (
    *("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity"),
    *("concave points", "symmetry", "fractal dimension"),
)
BREAST_CANCER = (
    *(f"mean {name}" for name in NUCLEUS),
    *(f"{name} error" for name in NUCLEUS),
    *(f"worst {name}" for name in NUCLEUS),
)


class Raw(NamedTuple):
    """A table before it is split.

    Attributes:
      x: measurements, float64 [N, D].
      y: classes or numbers, float64 [N].
      columns: names of the D columns.
      classes: names of the classes; empty for numbers.
    """

    x: np.ndarray
    y: np.ndarray
    columns: tuple[str, ...]
    classes: tuple[str, ...] = ()


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
    source = "embedded: 150 irises of scikit-learn"
    raw = _classified("iris.csv", IRIS, ("setosa", "versicolor", "virginica"))
    return _table("iris", raw, source, seed, (validation_fraction, test_fraction))


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
    source = "embedded: 442 patients with diabetes of scikit-learn"
    fractions = (validation_fraction, test_fraction)
    x = embedded.read("diabetes_data_raw.csv.gz", delimiter=None)
    raw = Raw(x, embedded.read("diabetes_target.csv.gz"), DIABETES)
    return _table("diabetes", raw, source, seed, fractions)


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
    source = "embedded: 569 breast tumours of scikit-learn"
    fractions = (validation_fraction, test_fraction)
    raw = _classified("breast_cancer.csv", BREAST_CANCER, ("malignant", "benign"))
    return _table("breast_cancer", raw, source, seed, fractions)


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
    source = "embedded: 178 wines of scikit-learn"
    raw = _classified("wine_data.csv", WINE, ("class_0", "class_1", "class_2"))
    return _table("wine", raw, source, seed, (validation_fraction, test_fraction))


def _classified(file: str, columns: tuple[str, ...], classes: tuple[str, ...]) -> Raw:
    """Reads a table whose last column is the class, and whose first line is a header."""
    rows = embedded.read(file, skip=1)
    return Raw(rows[:, :-1], rows[:, -1], columns, classes)


def _table(name: str, raw: Raw, source: str, seed: int, fractions: tuple[float, float]) -> Dataset:
    """Splits a data set of scikit-learn into training, validation and test.

    Each split is {"x": float32 [N, D], "y": [N]}: the raw columns, and a class (int32) or a number
    (float32). For regression, "centre" [N] is the mean of y over the split, which R² refers to.

    Raises:
      UserError: a split would be too small.
    """
    classes = raw.classes
    table = {
        "x": raw.x.astype(np.float32),
        "y": raw.y.astype(np.int32 if classes else np.float32),
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
        kept, part = embedded.split(len(rows), count, seed, labels)
        held_out_rows.append(np.sort(rows[part]))
        rows = rows[kept]

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
        columns=raw.columns,
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
