"""Loss functions. Each returns one loss per example; the task averages over the batch.

Every loss is finite, with a finite gradient, for outputs of up to 1e18.

Shapes: B examples, C classes, D features of a vector; `...` any further axes, which are averaged.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # (outputs, targets) -> [B]


def one_hot(labels: jax.Array, num_classes: int) -> jax.Array:
    """One-hot encoding of class indices; probabilities pass unchanged.

    Args:
      labels: class indices, integer [...], or probabilities, floating [..., C].
      num_classes: number of classes C.

    Returns:
      Probabilities [..., C].

    >>> one_hot(jnp.array([0, 2]), 3)
    Array([[1., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    indices = jnp.issubdtype(labels.dtype, jnp.integer)
    return jax.nn.one_hot(labels, num_classes) if indices else labels


def abs_zero_grad(x: jax.Array) -> jax.Array:
    """Absolute value with gradient 0 at 0.

    `jnp.abs` has gradient 1 there, which would move an exact prediction or a weight of zero.

    >>> float(abs_zero_grad(jnp.float32(-2.0))), float(jax.grad(abs_zero_grad)(0.0))
    (2.0, 0.0)
    """
    return x * jax.lax.stop_gradient(jnp.sign(x))


# Classification: logits [B, C] are unnormalised log-probabilities. Labels are class indices,
# integer [B], or probabilities, floating [B, C], as label smoothing and mixup produce them.
# With several labels per example, such as the tokens of a text, all arrays have the extra axes:
# logits [B, T, C] and labels [B, T]. Losses have the shape of the indices.


def cross_entropy(
    logits: jax.Array, labels: jax.Array, label_smoothing: float | jax.Array = 0.0
) -> jax.Array:
    """Softmax cross-entropy in nats.

    Args:
      logits: unnormalised log-probabilities [B, C]; bfloat16 is converted to float32.
      labels: class indices [B] or probabilities [B, C].
      label_smoothing: probability that is spread evenly over all classes, see `smooth_labels`.

    Returns:
      Losses [B]; NaN for an index outside the classes.

    >>> cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))  # log(4)
    Array([1.3862944, 1.3862944], dtype=float32)
    """
    logits = _at_least_float32(logits)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        targets = smooth_labels(labels, logits.shape[-1], label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)
    # Indices are not expanded to probabilities of the logits' shape: this takes half the time
    # where there are many classes.
    shifted = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    classes = jax.lax.broadcasted_iota(labels.dtype, logits.shape, logits.ndim - 1)
    is_label = classes == labels[..., None]
    # An index outside the classes gives NaN. Examples that must not count have a mask.
    is_class = (labels >= 0) & (labels < logits.shape[-1])
    label_logits = jnp.sum(jnp.where(is_label, shifted, 0), axis=-1)
    label_logits = jnp.where(is_class, label_logits, jnp.nan)
    label_logits += label_smoothing * (jnp.mean(shifted, axis=-1) - label_logits)
    return jnp.log(jnp.sum(jnp.exp(shifted), axis=-1)) - label_logits


def smooth_labels(labels: jax.Array, num_classes: int, share: float | jax.Array) -> jax.Array:
    """Label smoothing to probabilities [B, C] (Szegedy et al., 2016).

    Args:
      labels: class indices [B] or probabilities [B, C].
      num_classes: number of classes C.
      share: probability that is taken from each label and spread evenly over all classes.

    >>> smooth_labels(jnp.array([1]), 4, 0.5)
    Array([[0.125, 0.625, 0.125, 0.125]], dtype=float32)
    """
    return optax.smooth_labels(one_hot(labels, num_classes), share)


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Sigmoid cross-entropy [B] in nats: of one logit [B], or the mean over classes of [B, C].

    Labels are probabilities of the logits' shape or, for [B, C], class indices [B].
    """
    logits = _at_least_float32(logits)
    targets = one_hot(labels, logits.shape[-1]) if logits.ndim == 2 else labels
    return _per_example(optax.sigmoid_binary_cross_entropy(logits, targets.astype(logits.dtype)))


def negative_log_likelihood(log_probabilities: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log-likelihood of the label in nats, for normalised log-probabilities [B, C]."""
    log_probabilities = _at_least_float32(log_probabilities)
    targets = one_hot(labels, log_probabilities.shape[-1])
    # A class of target 0 may have log-probability -inf: 0 * -inf would be NaN.
    return -jnp.sum(targets * jnp.where(targets > 0, log_probabilities, 0), axis=-1)


def kl_divergence(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """KL(labels || softmax(logits)) in nats: the cross-entropy minus the entropy of the labels."""
    log_p = jax.nn.log_softmax(_at_least_float32(logits))
    return optax.losses.kl_divergence(log_p, one_hot(labels, log_p.shape[-1]).astype(log_p.dtype))


def hinge(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Multiclass hinge loss with a margin of 1 (Crammer & Singer, 2001).

    max_j (s_j + 1 - t_j) - sum_j t_j s_j for scores s and label probabilities t. It is zero when
    the label's score exceeds every other score by at least 1.

    >>> hinge(jnp.array([[3.0, 1.0], [0.0, 0.5]]), jnp.array([0, 1]))
    Array([0. , 0.5], dtype=float32)
    """
    scores = _at_least_float32(scores)
    targets = one_hot(labels, scores.shape[-1])
    return jnp.max(scores + 1 - targets, axis=-1) - jnp.sum(scores * targets, axis=-1)


def focal(logits: jax.Array, labels: jax.Array, gamma: float | jax.Array = 2.0) -> jax.Array:
    """Focal loss over a softmax: cross-entropy weighted by (1 - p)**gamma (Lin et al., 2017).

    A greater `gamma` gives less weight to well-classified examples; 0 gives the cross-entropy.
    """
    log_p = jax.nn.log_softmax(_at_least_float32(logits))
    # log(1 - p) from log p: it and its gradient stay finite where p is 1.
    log_complement = jnp.log(-jnp.expm1(jnp.minimum(log_p, -jnp.finfo(log_p.dtype).tiny)))
    targets = one_hot(labels, log_p.shape[-1])
    return -jnp.sum(targets * jnp.exp(gamma * log_complement) * log_p, axis=-1)


# Regression: predictions and targets have one shape, [B] or [B, ...]; losses are [B].


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Squared error (y - t)**2, without a factor of 1/2."""
    return _per_example(optax.squared_error(_at_least_float32(predictions), targets))


def absolute_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Absolute error |y - t|, with gradient 0 where it is 0."""
    return _per_example(abs_zero_grad(_at_least_float32(predictions) - targets))


def huber(predictions: jax.Array, targets: jax.Array, delta: float | jax.Array = 1.0) -> jax.Array:
    """Huber loss (Huber, 1964): e**2 / 2 for |e| <= delta, else delta * (|e| - delta / 2).

    >>> huber(jnp.array([0.5, 3.0]), jnp.array([0.0, 0.0]))
    Array([0.125, 2.5  ], dtype=float32)
    """
    return _per_example(optax.huber_loss(_at_least_float32(predictions), targets, delta=delta))


def log_cosh(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Log-cosh loss log(cosh(y - t)): near e**2 / 2 for small errors, |e| - log 2 for large ones.

    Small errors use log(1 + 2 sinh(e / 2)**2). optax's form, a difference of logarithms, loses all
    digits there.
    """
    error = abs_zero_grad(_at_least_float32(predictions) - targets)
    small = jnp.log1p(2 * jnp.square(jnp.sinh(jnp.minimum(error, 1) / 2)))
    large = error - jnp.log(2.0) + jnp.log1p(jnp.exp(-2 * error))
    return _per_example(jnp.where(error < 1, small, large))


# Distances between vectors [B, D]. A vector shorter than 1e-14 counts as zero, which is orthogonal
# to every other vector.


def cosine_distance(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Cosine distance [B] in [0, 2]: 1 minus the cosine of the angle between two vectors.

    >>> cosine_distance(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0]]))
    Array([1.], dtype=float32)
    """
    return 1 - jnp.sum(_unit(predictions) * _unit(targets), axis=-1)


def angular_distance(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Angular distance [B] in [0, 1]: the angle between two vectors, divided by pi.

    Unlike the cosine distance it is a metric. Computed as 2 atan2(|u - v|, |u + v|) of the unit
    vectors, which unlike the arc cosine keeps its digits and its gradient for parallel vectors
    (Kahan, 2006).
    """
    u, v = _unit(predictions), _unit(targets)
    return 2 / jnp.pi * jnp.arctan2(_norm(u - v)[..., 0], _norm(u + v)[..., 0])


def normal_divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL(N(mean, variance) || N(0, 1)) in nats, summed over the latents: [B, L] -> [B].

    >>> normal_divergence(jnp.array([[1.0, 0.0]]), jnp.zeros((1, 2)))
    Array([0.5], dtype=float32)
    """
    divergence = jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance
    return 0.5 * jnp.sum(divergence, axis=-1)


# Adversarial losses of a discriminator's outputs for real and for generated examples, [B] each.


class Adversarial(NamedTuple):
    """Adversarial losses of a discriminator and a generator.

    Attributes:
      discriminator: (outputs for real [B], outputs for generated [B]) -> losses [B].
      generator: outputs for generated [B] -> losses [B].
    """

    discriminator: Callable[[jax.Array, jax.Array], jax.Array]
    generator: Callable[[jax.Array], jax.Array]


def gradient_penalty(critic: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Gradient penalty (|grad critic(x)| - 1)**2 of WGAN-GP (Gulrajani et al., 2017).

    Args:
      critic: images [B, ...] -> [B]; each output depends on its own image only.
      x: interpolations [B, ...] between real and generated images.

    Returns:
      Penalties [B].
    """
    gradients = jax.grad(lambda x: jnp.sum(critic(x)))(x)
    norm = optax.safe_norm(gradients.reshape(len(x), -1), 1e-12, axis=-1)
    return jnp.square(norm - 1)


ADVERSARIAL: dict[str, Adversarial] = {
    # Goodfellow et al. (2014); Lim & Ye (2017); Arjovsky et al. (2017).
    "non_saturating": Adversarial(
        lambda real, fake: jax.nn.softplus(-real) + jax.nn.softplus(fake),
        lambda fake: jax.nn.softplus(-fake),
    ),
    "hinge": Adversarial(
        lambda real, fake: jax.nn.relu(1 - real) + jax.nn.relu(1 + fake), lambda fake: -fake
    ),
    "wasserstein": Adversarial(lambda real, fake: fake - real, lambda fake: -fake),
}
CLASSIFICATION: dict[str, Loss] = {
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


def _at_least_float32(outputs: jax.Array) -> jax.Array:
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))


def _per_example(values: jax.Array) -> jax.Array:
    """Mean over all axes but the first: [B, ...] -> [B]."""
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def _norm(vectors: jax.Array) -> jax.Array:
    """Norms [B, 1] of vectors [B, D], bounded below, so that the gradient at zero is zero."""
    return optax.safe_norm(vectors, jnp.finfo(vectors.dtype).eps ** 2, axis=-1, keepdims=True)


def _unit(vectors: jax.Array) -> jax.Array:
    vectors = _at_least_float32(vectors)
    return vectors / _norm(vectors)
