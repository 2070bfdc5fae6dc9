"""Losses, each per example: the mean over a batch happens once, in the task.

Every one is finite, with a finite gradient, for outputs of up to 1e18.

Shapes: B examples, C classes, D entries of an output; `...` any further axes, which are averaged.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # (outputs, targets) -> [B]


def one_hot(labels: jax.Array, num_classes: int) -> jax.Array:
    """Class indices (integers) [...] as probabilities [..., C]; probabilities pass unchanged."""
    indices = jnp.issubdtype(labels.dtype, jnp.integer)
    return jax.nn.one_hot(labels, num_classes) if indices else labels


def absolute(x: jax.Array) -> jax.Array:
    """|x| with a gradient of 0 at 0, where jnp.abs has 1: what is exact is left where it is."""
    return x * jax.lax.stop_gradient(jnp.sign(x))


# Classification: logits [B, C] are unnormalised log-probabilities; labels are indices, integers
# [B], or probabilities, floating [B, C], as label smoothing and mixup make them. Where there are
# several to an example, as tokens in a text, all have axes more: [B, T, C] and [B, T].


def cross_entropy(
    logits: jax.Array, labels: jax.Array, label_smoothing: float | jax.Array = 0.0
) -> jax.Array:
    """Softmax cross-entropy in nats.

    Args:
      logits: [B, C]; bfloat16 is computed in float32.
      labels: [B] or [B, C].
      label_smoothing: see `smooth`.

    Returns:
      [B], one loss an example; of an index beyond the classes nan.
    """
    logits = _precise(logits)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        targets = smooth(labels, logits.shape[-1], label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)
    # The same without probabilities as large as the logits: half the time where classes are many.
    below = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    own = jax.lax.broadcasted_iota(labels.dtype, logits.shape, logits.ndim - 1) == labels[..., None]
    # Of a label that is no class the loss is no number: what shall not count has a mask.
    is_class = (labels >= 0) & (labels < logits.shape[-1])
    wanted = jnp.where(is_class, jnp.sum(jnp.where(own, below, 0), axis=-1), jnp.nan)
    wanted += label_smoothing * (jnp.mean(below, axis=-1) - wanted)
    return jnp.log(jnp.sum(jnp.exp(below), axis=-1)) - wanted


def smooth(labels: jax.Array, num_classes: int, share: float | jax.Array) -> jax.Array:
    """Labels [B] or [B, C] as probabilities [B, C], a `share` of each spread over all classes.

    Label smoothing (Szegedy et al., 2016).
    """
    return optax.smooth_labels(one_hot(labels, num_classes), share)


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Sigmoid cross-entropy in nats: of one output [B], or the mean of one-against-rest [B, C].

    Labels are probabilities of the logits' shape, or, for [B, C], class indices [B].
    """
    logits = _precise(logits)
    targets = one_hot(labels, logits.shape[-1]) if logits.ndim == 2 else labels
    return _mean(optax.sigmoid_binary_cross_entropy(logits, targets.astype(logits.dtype)))


def negative_log_likelihood(log_probabilities: jax.Array, labels: jax.Array) -> jax.Array:
    """Minus the log-probability of the label, in nats, for outputs [B, C] that are normalised."""
    log_probabilities = _precise(log_probabilities)
    targets = one_hot(labels, log_probabilities.shape[-1])
    # What is impossible, and was not the label, costs nothing: 0 times infinity would be NaN.
    return -jnp.sum(targets * jnp.where(targets > 0, log_probabilities, 0), axis=-1)


def kl_divergence(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """KL(labels, softmax(logits)) in nats: the cross-entropy less the labels' own entropy."""
    log_p = jax.nn.log_softmax(_precise(logits))
    return optax.losses.kl_divergence(log_p, one_hot(labels, log_p.shape[-1]).astype(log_p.dtype))


def hinge(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Multiclass hinge: by how much a wrong score plus a margin of 1 tops the label's, or 0.

    Crammer & Singer (2001): max_j (s_j + 1 - t_j) - sum_j t_j s_j, where t is the label as
    probabilities.
    """
    scores = _precise(scores)
    targets = one_hot(labels, scores.shape[-1])
    return jnp.max(scores + 1 - targets, axis=-1) - jnp.sum(scores * targets, axis=-1)


def focal(logits: jax.Array, labels: jax.Array, gamma: float | jax.Array = 2.0) -> jax.Array:
    """Cross-entropy with each class weighted by (1 - p)**gamma (Lin et al., 2017, over a softmax).

    What is classified well counts less; gamma of 0 is the cross-entropy.
    """
    log_p = jax.nn.log_softmax(_precise(logits))
    # 1 - p through the logarithm: neither p of 1 nor its gradient leaves the finite numbers.
    log_rest = jnp.log(-jnp.expm1(jnp.minimum(log_p, -jnp.finfo(log_p.dtype).tiny)))
    return -jnp.sum(one_hot(labels, log_p.shape[-1]) * jnp.exp(gamma * log_rest) * log_p, axis=-1)


# Regression: predictions and targets of one shape, [B] or [B, ...].


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """(y - t)**2, without the half that some put before it."""
    return _mean(optax.squared_error(_precise(predictions), targets))


def absolute_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """|y - t|; its gradient at 0 is 0."""
    return _mean(absolute(_precise(predictions) - targets))


def huber(predictions: jax.Array, targets: jax.Array, delta: float | jax.Array = 1.0) -> jax.Array:
    """e**2 / 2 of errors e up to delta, delta * (|e| - delta / 2) beyond (Huber, 1964)."""
    return _mean(optax.huber_loss(_precise(predictions), targets, delta=delta))


def log_cosh(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """log(cosh(y - t)): half the square of a small error, |y - t| - log 2 of a large one.

    For small errors as log(1 + 2 sinh((y - t) / 2)**2), where optax's form, a difference of
    logarithms, has no digit left.
    """
    error = absolute(_precise(predictions) - targets)
    small = jnp.log1p(2 * jnp.square(jnp.sinh(jnp.minimum(error, 1) / 2)))
    large = error - jnp.log(2.0) + jnp.log1p(jnp.exp(-2 * error))
    return _mean(jnp.where(error < 1, small, large))


# Between vectors [B, D]; one shorter than 1e-14 is as good as zero, at a right angle to all.


def cosine_distance(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """1 minus the cosine of the angle between two vectors: from 0 to 2."""
    return 1 - jnp.sum(_unit(predictions) * _unit(targets), axis=-1)


def angular_distance(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """The angle between two vectors as a share of pi: from 0 to 1, and a metric, as 1 - cos is not.

    By 2 atan2(|u - v|, |u + v|) of the unit vectors, which unlike the arc cosine keeps its digits
    and its gradient where they are parallel (Kahan, 2006).
    """
    u, v = _unit(predictions), _unit(targets)
    return 2 / jnp.pi * jnp.arctan2(_norm(u - v)[..., 0], _norm(u + v)[..., 0])


def normal_divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL(N(mean, variance), N(0, 1)) in nats, the sum over the entries [B, L]: [B]."""
    each = jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance
    return 0.5 * jnp.sum(each, axis=-1)


# Adversarial: of what a discriminator says of real and of generated images, [B] each.


class Adversarial(NamedTuple):
    """Losses of a discriminator and of a generator."""

    discriminator: Callable[[jax.Array, jax.Array], jax.Array]  # (of real, of generated) -> [B]
    generator: Callable[[jax.Array], jax.Array]  # of generated -> [B]


def gradient_penalty(critic: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Squared distance of a critic's slope at each image from 1 (Gulrajani et al., 2017).

    Args:
      critic: images [B, ...] -> [B], each by itself.
      x: [B, ...], between real and generated images.

    Returns:
      [B].
    """
    slopes = jax.grad(lambda x: jnp.sum(critic(x)))(x)
    norm = optax.safe_norm(slopes.reshape(len(x), -1), 1e-12, axis=-1)
    return jnp.square(norm - 1)


ADVERSARIAL: dict[str, Adversarial] = {
    # Goodfellow et al. (2014); Lim & Ye (2017); Arjovsky et al. (2017).
    "non_saturating": Adversarial(
        lambda real, made: jax.nn.softplus(-real) + jax.nn.softplus(made),
        lambda made: jax.nn.softplus(-made),
    ),
    "hinge": Adversarial(
        lambda real, made: jax.nn.relu(1 - real) + jax.nn.relu(1 + made), lambda made: -made
    ),
    "wasserstein": Adversarial(lambda real, made: made - real, lambda made: -made),
}
CLASSIFICATION: dict[str, Loss] = {  # of logits
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "kl_divergence": kl_divergence,
    "hinge": hinge,
    "focal": focal,
}
REGRESSION: dict[str, Loss] = {
    "squared_error": squared_error,
    "absolute_error": absolute_error,
    "huber": huber,
    "log_cosh": log_cosh,
}
LOSSES: dict[str, Loss] = {
    **CLASSIFICATION,
    **REGRESSION,
    "negative_log_likelihood": negative_log_likelihood,
    "cosine_distance": cosine_distance,
    "angular_distance": angular_distance,
}


def _precise(outputs: jax.Array) -> jax.Array:
    """At least float32."""
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))


def _mean(values: jax.Array) -> jax.Array:
    """[B, ...] -> [B]."""
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def _norm(vectors: jax.Array) -> jax.Array:
    """Lengths [B, 1] of vectors [B, D]; at zero a tiny one, and a gradient of zero."""
    return optax.safe_norm(vectors, jnp.finfo(vectors.dtype).eps ** 2, axis=-1, keepdims=True)


def _unit(vectors: jax.Array) -> jax.Array:
    vectors = _precise(vectors)
    return vectors / _norm(vectors)
