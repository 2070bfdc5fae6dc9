"""Deep ensembles (Lakshminarayanan et al., 2017): averaged predictions and their metrics.

An ensemble predicts the mean of its members' probabilities, or of their numbers.

Shapes: M members, N examples, K classes.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdl import class_metrics, metrics


def log_probabilities(outputs: np.ndarray, kind: str) -> np.ndarray:
    """Logarithms of probabilities, float64.

    Args:
      outputs: logits [N, K] of exclusive classes, or [N, 1] of the second of two classes; or logits
        [N, K] of independent labels.
      kind: "logits" or "labels", see `task.KINDS`.

    Returns:
      [N, K] for exclusive classes; for labels [2, N, K], of each label being false and true.
    """
    logits = np.asarray(outputs, np.float64)
    if kind == "labels":
        return -np.logaddexp(0, np.stack([logits, -logits]))
    if logits.shape[1] == 1:  # a sigmoid of z is a softmax over (0, z)
        logits = np.pad(logits, ((0, 0), (1, 0)))
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def average(members: Sequence[np.ndarray], kind: str) -> np.ndarray:
    """Prediction of an ensemble.

    Args:
      members: results of `log_probabilities` of M members; or their numbers, for kind "numbers".
      kind: meaning of the outputs: "logits", "labels" or "numbers".

    Returns:
      The logarithm of the mean probabilities, or the mean of the numbers.
    """
    if kind == "numbers":
        return np.mean(np.asarray(members, np.float64), axis=0)
    return np.logaddexp.reduce(members, axis=0) - np.log(len(members))


def measure(
    predictions: np.ndarray,
    targets: np.ndarray,
    kind: str,
    names: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> dict[str, float]:
    """Metrics of the predictions of a member or an ensemble.

    Args:
      predictions: logarithms of probabilities as of `log_probabilities`, or numbers [N, ...].
      targets: class indices, integer [N]; 0 and 1 for each label [N, K]; or numbers [N, ...].
      kind: meaning of the predictions: "logits", "labels" or "numbers".
      names: further metrics of classes, see `class_metrics.measure`.
      classes: names of the classes; empty if unknown.

    Returns:
      For classes and labels `accuracy`, the negative log-likelihood `cross_entropy` and the `brier`
      score; for numbers the mean absolute `error`, `rmse` and `r_squared`.
    """
    if kind == "numbers":
        return _measure_numbers(predictions, np.asarray(targets, np.float64))
    if kind == "labels":
        chosen = np.where(targets > 0.5, predictions[1], predictions[0])
        square = np.square(np.exp(predictions[1]) - targets)
        logits = predictions[1] - predictions[0]
    else:
        chosen = np.take_along_axis(predictions, targets[:, None], axis=1)
        square = np.square(np.exp(predictions) - np.eye(predictions.shape[1])[targets])
        logits = predictions
    wanted = dict.fromkeys(("accuracy", *names))
    mask = jnp.ones(len(targets))
    found = class_metrics.measure(
        list(wanted), jnp.asarray(logits), jnp.asarray(targets), mask, classes
    )
    values = metrics.scalars(metrics.divide(found))
    brier = float(np.mean(np.sum(square, axis=1)))
    return values | {"cross_entropy": -float(np.mean(chosen)), "brier": brier}


def _measure_numbers(predictions: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    errors = predictions - targets
    spread = np.sum(np.square(targets - np.mean(targets)))
    squares = np.sum(np.square(errors))
    return {
        "error": float(np.mean(np.abs(errors))),
        "rmse": float(np.sqrt(np.mean(np.square(errors)))),
        "r_squared": float(1 - squares / spread) if spread else float("nan"),
    }
