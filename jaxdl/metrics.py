"""Metrics as (total, count) pairs, which add up exactly over batches, devices and hosts.

The value of a metric is total / count. The division happens once, on the host, when it is logged.
`class_metrics` has the metrics of classification by name.

Shapes: B examples, C classes.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import UserError
from jaxdl.ranking import Gathered

Metrics = dict[str, Any]  # pairs (total, count), or `Gathered`


class Exponential(NamedTuple):
    """Metric with value exp(total / number), such as the perplexity of a loss in nats."""

    total: jax.Array
    number: jax.Array

    @staticmethod
    def value(mean: np.ndarray) -> np.ndarray:
        """Exponential of the mean.

        >>> float(Exponential.value(np.log(8.0)).round(6))
        8.0
        """
        return np.exp(mean)


class RootMean(NamedTuple):
    """Metric with value sqrt(total / number), such as the root mean square of errors."""

    total: jax.Array
    number: jax.Array

    @staticmethod
    def value(mean: np.ndarray) -> np.ndarray:
        """Square root of the mean.

        >>> float(RootMean.value(np.float64(9.0)))
        3.0
        """
        return np.sqrt(mean)


class Entropy(NamedTuple):
    """Metric with the entropy of a histogram as its value, in nats.

    Attributes:
      total: counts [K] of each class.
      number: sum of the counts.
    """

    total: jax.Array
    number: jax.Array

    @staticmethod
    def value(mean: np.ndarray) -> np.ndarray:
        """Entropy of the frequencies [K], in nats.

        >>> bool(np.isclose(Entropy.value(np.array([0.5, 0.5])), np.log(2)))
        True
        """
        return np.sum(mean * -np.log(np.where(mean > 0, mean, 1))) + 0.0  # turns -0 into 0


class Frechet(NamedTuple):
    """Metric with the Fréchet distance between real and generated features as its value.

    |m - n|**2 + tr(C + D - 2 (C D)**(1/2)) for means m, n and covariances C, D (Heusel et al.,
    2017). The moments add up, so the value is that of all examples, not a mean over batches.

    Attributes:
      total: [2, F, F + 1] for real and generated features x, relative to a centre: the sum of
        x x^T, with the sum of x in the last column.
      number: number of examples.
    """

    total: jax.Array
    number: jax.Array

    @staticmethod
    def value(mean: np.ndarray) -> np.ndarray:
        """Fréchet distance from the mean moments [2, F, F + 1]; NaN if they are not finite."""
        (real_square, m), (generated_square, n) = ((a[:, :-1], a[:, -1]) for a in mean)
        if not np.all(np.isfinite(mean)):
            return np.asarray(np.nan)
        C, D = real_square - np.outer(m, m), generated_square - np.outer(n, n)
        eigenvalues, eigenvectors = np.linalg.eigh(C)
        root = eigenvectors * np.sqrt(np.maximum(eigenvalues, 0)) @ eigenvectors.T
        cross = np.sum(np.sqrt(np.maximum(np.linalg.eigvalsh(root @ D @ root), 0)))
        distance = np.sum((m - n) ** 2) + np.trace(C) + np.trace(D) - 2 * cross
        return np.asarray(distance)


def frechet(real: jax.Array, generated: jax.Array, mask: jax.Array, centre: jax.Array) -> Frechet:
    """Moments of real and generated features about a centre, for the Fréchet distance.

    Args:
      real: features of real examples [B, F].
      generated: features of generated examples [B, F].
      mask: [B], 1 for examples and 0 for padding.
      centre: [F], the same for all batches. The distance does not depend on it. But float32 moments
        lose the covariance when the centre is thousands of standard deviations away.
    """

    def moments(x: jax.Array) -> jax.Array:
        x = x - centre[None]
        masked = x * mask[:, None]
        return jnp.concatenate([masked.T @ x, jnp.sum(masked, axis=0)[:, None]], axis=1)

    return Frechet(jnp.stack([moments(real), moments(generated)]), jnp.sum(mask))


def mean(values: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Masked mean.

    Args:
      values: [B], or [B, T] with several values per example.
      mask: array of the same shape, 1 for values that count and 0 for padding.

    Returns:
      The sum of the values and their number.

    Raises:
      UserError: the shapes differ, such as [B, 1] and [B], which would broadcast.

    >>> total, count = mean(jnp.array([2.0, 4.0, 9.0]), jnp.array([1.0, 1.0, 0.0]))
    >>> float(total), float(count)
    (6.0, 2.0)
    """
    try:
        chex.assert_equal_shape([values, mask])
    except AssertionError as error:
        raise UserError(
            f"values of shape {values.shape} have a mask of shape {mask.shape}: give both the same"
        ) from error
    return jnp.sum(jnp.where(mask > 0, values, 0)), jnp.sum(mask)


def scalar(value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Metric of a whole step, such as a gradient norm; it is averaged over steps."""
    return value, jnp.ones((), jnp.float32)


def r_squared(
    predictions: jax.Array, targets: jax.Array, centre: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Coefficient of determination, 1 - sum (t - y)**2 / sum (t - c)**2; exact over many batches.

    Args:
      predictions: y [B].
      targets: t [B].
      centre: c [B], the mean target of the whole split, repeated for every example.
      mask: [B], 1 for examples and 0 for padding.
    """
    deviation = jnp.square(targets - centre)
    total, _ = mean(deviation - jnp.square(targets - predictions), mask)
    return total, mean(deviation, mask)[0]


def explained_variance(
    predictions: jax.Array, targets: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Explained variance, 1 - Var(t - y) / Var(t).

    Unlike `r_squared`, it ignores an error that is the same for all examples. The variances are
    those within a batch; over many batches, each is weighted by the variance of its targets.

    Args:
      predictions: y [B].
      targets: t [B].
      mask: [B], 1 for examples and 0 for padding.
    """

    def squared_deviation(x: jax.Array) -> jax.Array:
        total, count = mean(x, mask)
        return mean(jnp.square(x - total / count), mask)[0]

    total = squared_deviation(targets)
    return total - squared_deviation(targets - predictions), total


def correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Top-1 correctness: 1 where the argmax of the logits is the label, else 0.

    Args:
      logits: [..., C]; of equal logits the first counts as the argmax, and a NaN is never right.
      labels: class indices, integer [...], or probabilities, floating [..., C].

    Returns:
      Array [...], float32.

    >>> correct(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1]))
    Array([1., 0.], dtype=float32)
    """
    indices = jnp.issubdtype(labels.dtype, jnp.integer)
    label = (labels if indices else jnp.argmax(labels, axis=-1))[..., None]
    label_logit = jnp.take_along_axis(logits, label, axis=-1)
    classes = jax.lax.broadcasted_iota(label.dtype, logits.shape, logits.ndim - 1)
    # Comparisons take a quarter of the time of an argmax on a CPU. They are false beside a NaN.
    behind = (logits < label_logit) | ((logits == label_logit) & (classes >= label))
    return jnp.all(behind, axis=-1).astype(jnp.float32)


def confusion(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Confusion matrix: entry (i, j) is the share of class i that is predicted as class j.

    Args:
      logits: [B, C].
      labels: [B] class indices.
      mask: [B], 1 for examples and 0 for padding.

    Returns:
      Total [C, C], the number of examples of class i predicted as class j, and count [C, 1], the
      number of examples of each class.
    """
    num_classes = logits.shape[-1]
    true = jax.nn.one_hot(labels, num_classes) * mask[:, None]
    predicted = jax.nn.one_hot(jnp.argmax(logits, axis=-1), num_classes)
    return true.T @ predicted, jnp.sum(true, axis=0)[:, None]


def add(left: Metrics, right: Metrics) -> Metrics:
    """Adds the totals and the counts of two batches; joins the rows of `Gathered` metrics."""

    def join(a: Any, b: Any) -> Any:
        if isinstance(a, Gathered):
            return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), a, b)
        return jnp.add(a, b)

    return jax.tree.map(join, left, right, is_leaf=lambda x: isinstance(x, Gathered))


def divide(metrics: Metrics) -> dict[str, np.ndarray]:
    """Transfers the metrics to the host at once and divides total by count there, in float64.

    A count of zero gives NaN.

    >>> {name: float(value) for name, value in divide({"loss": (6.0, 4.0)}).items()}
    {'loss': 1.5}
    """
    values = {}
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for name, pair in jax.device_get(metrics).items():
            if isinstance(pair, Gathered):
                values[name] = pair.value(*pair)
                continue
            total, count = (np.asarray(part, np.float64) for part in pair)
            value = total / count
            values[name] = pair.value(value) if hasattr(pair, "value") else value
    return values


def scalars(values: dict[str, np.ndarray]) -> dict[str, float]:
    """Selects the values that are single numbers, not arrays.

    >>> scalars({"loss": np.float64(1.5), "confusion": np.eye(2)})
    {'loss': 1.5}
    """
    return {name: float(value) for name, value in values.items() if np.ndim(value) == 0}
