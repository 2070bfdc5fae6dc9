"""Losses, each per example: the mean over a batch happens once, in the task.

Shapes: B examples, C classes.
"""

import jax
import jax.numpy as jnp
import optax


def one_hot(labels: jax.Array, num_classes: int) -> jax.Array:
    """Class indices [B] as probabilities [B, C]; what already is [B, C] passes unchanged."""
    return labels if labels.ndim == 2 else jax.nn.one_hot(labels, num_classes)


def cross_entropy(
    logits: jax.Array, labels: jax.Array, label_smoothing: float | jax.Array = 0.0
) -> jax.Array:
    """Softmax cross-entropy in nats, computed in float32.

    Args:
      logits: [B, C], unnormalised log-probabilities.
      labels: [B] class indices, or [B, C] probabilities (as mixup makes them).
      label_smoothing: share of each label that is spread evenly over all classes, in [0, 1]
        (Szegedy et al., 2016).

    Returns:
      [B], one loss an example.
    """
    logits = logits.astype(jnp.float32)
    targets = optax.smooth_labels(one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)
