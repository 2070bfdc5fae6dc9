"""Metrics as (total, count) pairs, which add up exactly over batches, devices and hosts.

A value is total / count, and that division happens once, on the host, when it is logged.
Shapes: B examples, C classes.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

Metrics = dict[str, tuple[jax.Array, jax.Array]]


class Exponential(NamedTuple):
    """A pair whose value is exp(total / number), such as the perplexity of a mean of nats."""

    total: jax.Array
    number: jax.Array

    @staticmethod
    def value(mean: np.ndarray) -> np.ndarray:
        """Exponential of the mean."""
        return np.exp(mean)


class Entropy(NamedTuple):
    """A pair of counts [K] and their sum, whose value is the entropy of the shares, in nats."""

    total: jax.Array
    number: jax.Array

    @staticmethod
    def value(mean: np.ndarray) -> np.ndarray:
        """Entropy of the shares, in nats."""
        return np.sum(mean * -np.log(np.where(mean > 0, mean, 1))) + 0.0  # not -0


class Frechet(NamedTuple):
    """Moments of real and generated features, whose value is the Fréchet distance of normals.

    |m - n|**2 + tr(C + D - 2 (C D)**(1/2)) for means m, n and covariances C, D (Heusel et al.,
    2017); over all examples at once, however many batches they came in.
    """

    total: jax.Array  # [2, F, F + 1]: sums of x x^T, and in the last column of x, about a centre
    number: jax.Array

    @staticmethod
    def value(mean: np.ndarray) -> np.ndarray:
        """Fréchet distance from the moments."""
        (second, m), (other, n) = ((a[:, :-1], a[:, -1]) for a in mean)
        if not np.all(np.isfinite(mean)):
            return np.asarray(np.nan)
        C, D = second - np.outer(m, m), other - np.outer(n, n)
        values, vectors = np.linalg.eigh(C)
        root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
        cross = np.sum(np.sqrt(np.maximum(np.linalg.eigvalsh(root @ D @ root), 0)))
        distance = np.sum((m - n) ** 2) + np.trace(C) + np.trace(D) - 2 * cross
        return np.asarray(distance)


def frechet(real: jax.Array, made: jax.Array, mask: jax.Array, centre: jax.Array) -> Frechet:
    """Moments of features of real and of generated examples about a centre.

    Args:
      real: [B, F].
      made: [B, F], of generated examples.
      mask: [B], 1 for examples and 0 for padding.
      centre: [F], the same for all batches. The distance does not depend on it; but about one that
        is thousands of deviations away, float32 moments have nothing left of the covariance.
    """

    def moments(x: jax.Array) -> jax.Array:
        x = x - centre[None]
        kept = x * mask[:, None]
        return jnp.concatenate([kept.T @ x, jnp.sum(kept, axis=0)[:, None]], axis=1)

    return Frechet(jnp.stack([moments(real), moments(made)]), jnp.sum(mask))


def mean(values: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean of `values` over where `mask` is 1; padding counts nothing.

    Both are [B], or of one shape for what there is several of in an example, [B, T].

    Raises:
      AssertionError: they have other shapes, such as [B, 1] and [B], which would broadcast.
    """
    chex.assert_equal_shape([values, mask])
    return jnp.sum(jnp.where(mask > 0, values, 0)), jnp.sum(mask)


def scalar(value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A number that describes a whole step; its mean is taken over steps."""
    return value, jnp.ones((), jnp.float32)


def r_squared(
    predictions: jax.Array, targets: jax.Array, centre: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Coefficient of determination, 1 - sum (t - y)**2 / sum (t - c)**2, over many batches exact.

    Args:
      predictions: y [B].
      targets: t [B].
      centre: c [B], for every example the mean target of its whole split.
      mask: [B], 1 for examples and 0 for padding.
    """
    around = jnp.square(targets - centre)
    total, _ = mean(around - jnp.square(targets - predictions), mask)
    return total, mean(around, mask)[0]


def explained_variance(
    predictions: jax.Array, targets: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Share of the targets' variance that predictions explain, 1 - Var(t - y) / Var(t).

    Unlike `r_squared`, an error that is the same for all examples costs nothing. Variances are
    those within a batch; over many batches each counts as its targets vary.

    Args:
      predictions: y [B].
      targets: t [B].
      mask: [B], 1 for examples and 0 for padding.
    """

    def spread(x: jax.Array) -> jax.Array:
        total, count = mean(x, mask)
        return mean(jnp.square(x - total / count), mask)[0]

    around = spread(targets)
    return around - spread(targets - predictions), around


def correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """[...], 1 where the largest of `logits` [..., C], or the first such, is the label's; else 0.

    Labels are indices, integer [...], or probabilities, floating [..., C].
    """
    indices = jnp.issubdtype(labels.dtype, jnp.integer)
    wanted = (labels if indices else jnp.argmax(labels, axis=-1))[..., None]
    own = jnp.take_along_axis(logits, wanted, axis=-1)
    classes = jax.lax.broadcasted_iota(wanted.dtype, logits.shape, logits.ndim - 1)
    # The argmax in a quarter of its time on a CPU; nothing is right beside a NaN.
    behind = (logits < own) | ((logits == own) & (classes >= wanted))
    return jnp.all(behind, axis=-1).astype(jnp.float32)


def confusion(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Confusion matrix: of the examples of class i [row], the share taken for class j [column].

    Args:
      logits: [B, C].
      labels: [B] class indices.
      mask: [B], 1 for examples and 0 for padding.

    Returns:
      The pair of total [C, C] (examples of class i taken for class j) and count [C, 1].
    """
    num_classes = logits.shape[-1]
    true = jax.nn.one_hot(labels, num_classes) * mask[:, None]
    predicted = jax.nn.one_hot(jnp.argmax(logits, axis=-1), num_classes)
    return true.T @ predicted, jnp.sum(true, axis=0)[:, None]


def add(left: Metrics, right: Metrics) -> Metrics:
    """Adds totals to totals and counts to counts."""
    return jax.tree.map(jnp.add, left, right)


def divide(metrics: Metrics) -> dict[str, np.ndarray]:
    """Brings the metrics to the host in one transfer and divides there, in float64.

    A count of zero gives NaN: nothing was measured.
    """
    values = {}
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for name, pair in jax.device_get(metrics).items():
            total, count = (np.asarray(part, np.float64) for part in pair)
            value = total / count
            values[name] = pair.value(value) if hasattr(pair, "value") else value
    return values


def scalars(values: dict[str, np.ndarray]) -> dict[str, float]:
    """The entries of `values` that are single numbers."""
    return {name: float(value) for name, value in values.items() if np.ndim(value) == 0}
