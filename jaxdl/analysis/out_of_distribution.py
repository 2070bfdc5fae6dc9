"""Scores that tell examples of the data from others: probability, energy and distance.

Each score is larger for examples that are less like the data.

Shapes: N examples, K classes, F features.
"""

from typing import NamedTuple

import numpy as np

from jaxdl import ranking
from jaxdl.analysis import ensemble


class Gaussians(NamedTuple):
    """Normal distributions of the features of each class, with one covariance.

    Attributes:
      means: mean features of each class, [K, F].
      whitening: matrix that turns a difference of features into one of unit covariance, [F, R]
        with R = min(N, F).
    """

    means: np.ndarray
    whitening: np.ndarray


def improbability(logits: np.ndarray) -> np.ndarray:
    """1 minus the largest probability (Hendrycks & Gimpel, 2017), [N].

    Args:
      logits: logits of exclusive classes, [N, K] or [N, 1].
    """
    return 1 - np.exp(np.max(ensemble.log_probabilities(logits, "logits"), axis=1))


def energy(logits: np.ndarray) -> np.ndarray:
    """Free energy -log sum exp(logits) (Liu et al., 2020), [N].

    Args:
      logits: logits of exclusive classes, [N, K].
    """
    return -np.logaddexp.reduce(np.asarray(logits, np.float64), axis=1)


def fit_gaussians(features: np.ndarray, labels: np.ndarray) -> Gaussians:
    """Means of classes and their shared covariance (Lee et al., 2018).

    Directions in which the features do not vary, to rounding, do not count.

    Args:
      features: features of the training examples, [N, F].
      labels: their classes, int [N].
    """
    features = np.asarray(features, np.float64)
    means = np.stack([features[labels == k].mean(axis=0) for k in np.unique(labels)])
    centred = features - means[np.searchsorted(np.unique(labels), labels)]
    # Of the rows and not of the covariance, which has [F, F] entries and a rank of at most N.
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    values = np.square(lengths) / len(features)
    scale = np.where(values > 1e-9 * values[0], 1 / np.sqrt(values + 1e-300), 0)
    return Gaussians(means, directions.T * scale)


def mahalanobis(gaussians: Gaussians, features: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distance to the nearest class (Lee et al., 2018), [N].

    Args:
      gaussians: result of `fit_gaussians`.
      features: features of the examples, [N, F].
    """
    white = np.asarray(features, np.float64) @ gaussians.whitening
    centres = gaussians.means @ gaussians.whitening
    distances = [np.sum(np.square(white - centre), axis=1) for centre in centres]
    return np.min(distances, axis=0)


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Probability that an example from outside has a larger score than one from inside.

    A tie counts a half.

    Args:
      inside: scores of examples of the data, [N].
      outside: scores of other examples, [M].
    """
    scores = np.concatenate([inside, outside])
    is_outside = np.repeat([0, 1], [len(inside), len(outside)])
    return float(ranking.roc_auc(scores[:, None], is_outside[:, None], np.ones(len(scores))))
