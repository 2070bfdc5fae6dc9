"""Representations: similarity of layers, nearest neighbours, and units that do nothing.

Shapes: N examples, F and G features of two layers, P positions, C channels.
"""

from typing import Any

import numpy as np


def gram(features: np.ndarray) -> np.ndarray:
    """Centred Gram matrix [N, N] of features [N, F]."""
    x = np.asarray(features, np.float64)
    x = x - x.mean(axis=0)
    return x @ x.T


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Linear CKA of two representations (Kornblith et al., 2019), from their Gram matrices.

    It is 1 for representations that differ by a rotation, a scale and a shift. It is not changed
    by other orders of the features.

    Args:
      a: Gram matrix of one representation, [N, N].
      b: Gram matrix of another one of the same examples, [N, N].

    Returns:
      0 to 1; NaN if a representation is constant.
    """
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.sum(a * b) / scale) if scale > 0 else float("nan")


def similarities(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> np.ndarray:
    """Linear CKA of each layer of one model with each of another, [len(first), len(second)].

    Args:
      first: features [N, F] by layer.
      second: features [N, G] by layer, of the same examples.
    """
    rows, columns = ([gram(x) for x in layers.values()] for layers in (first, second))
    return np.array([[similarity(a, b) for b in columns] for a in rows])


def neighbours(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, wanted: np.ndarray
) -> float:
    """Accuracy of the majority among the five nearest training examples.

    Args:
      train: training features [N, F].
      labels: their classes [N].
      test: test features [M, F].
      wanted: their classes [M].
    """
    from sklearn.neighbors import KNeighborsClassifier

    count = min(5, len(train))
    return float(KNeighborsClassifier(count).fit(train, labels).score(test, wanted))


def silent_units(outputs: np.ndarray) -> tuple[int, int]:
    """Counts units that are never positive, and those that are always the same.

    A unit that is never positive is dead if a ReLU follows.

    Args:
      outputs: outputs of a layer, [N, P, C]; a unit is a channel.
    """
    high, low = (f(outputs, axis=(0, 1)) for f in (np.max, np.min))
    return int(np.sum(high <= 0)), int(np.sum(high == low))


def pooled(outputs: Any, most: int = 512) -> Any:
    """Features [N, F] of outputs [N, P, C]: all of them, or their means over positions if many."""
    N, P, C = outputs.shape
    return outputs.reshape(N, P * C) if most >= P * C else outputs.mean(axis=1)
