"""Data files within scikit-learn, read without importing it, and its stratified split.

`import sklearn` takes 1.5 s of CPU time, more than `import jax`. The files are small.
"""

import importlib.util
from pathlib import Path

import numpy as np


def read(name: str, skip: int = 0, delimiter: str | None = ",") -> np.ndarray:
    """Reads a table of numbers that ships with scikit-learn.

    Args:
      name: name of the file in `sklearn/datasets/data`.
      skip: number of lines before the first row.
      delimiter: text between two numbers; None for any blank.

    Returns:
      The rows, float64 [N, D], or [N] if there is one column.
    """
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "datasets" / "data" / name
    return np.loadtxt(path, delimiter=delimiter, skiprows=skip)


def split(
    count: int, held_out: int, seed: int, labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows into two parts, as scikit-learn's `train_test_split` does.

    Args:
      count: number of rows, N.
      held_out: number of rows of the second part.
      seed: seed of the split.
      labels: classes [N], which have the same shares in both parts; None for any.

    Returns:
      Row numbers of the first part and of the second, in random order.
    """
    random = np.random.RandomState(seed)
    if labels is None:
        order = random.permutation(count)
        return order[held_out:], order[:held_out]
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    sizes = np.array([len(rows) for rows in classes])
    firsts = _apportion(sizes, count - held_out, random)
    seconds = _apportion(sizes - firsts, held_out, random)
    parts: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for rows, first, second in zip(classes, firsts, seconds, strict=True):
        shuffled = rows[random.permutation(len(rows))]
        parts[0].append(shuffled[:first])
        parts[1].append(shuffled[first : first + second])
    first_rows, second_rows = (random.permutation(np.concatenate(part)) for part in parts)
    return first_rows, second_rows


def _apportion(sizes: np.ndarray, total: int, random: np.random.RandomState) -> np.ndarray:
    """Divides a number of rows among classes by the method of largest remainders, ties at random.

    The arithmetic is that of scikit-learn, including its rounding, so that as many random numbers
    are drawn.
    """
    quotas = sizes / sizes.sum() * total
    shares = np.floor(quotas)
    remainders = quotas - shares
    missing = int(total - shares.sum())
    for remainder in np.unique(remainders)[::-1]:
        if missing <= 0:
            break
        equal = np.flatnonzero(remainders == remainder)
        chosen = random.choice(equal, min(len(equal), missing), replace=False)
        shares[chosen] += 1
        missing -= len(chosen)
    return shares.astype(int)
