"""The clipped objective of proximal policy optimisation (Schulman et al., 2017).

Shapes: T steps, B episodes side by side, M steps of a minibatch, D numbers of an observation, A
actions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl import metrics
from jaxdl.metrics import Metrics
from jaxdl.rl import returns
from jaxdl.rl.environment import Transition
from jaxdl.rl.returns import Number

Think = Callable[[jax.Array], tuple[jax.Array, jax.Array]]  # [B, D] -> logits [B, A], values [B]


class Trajectory(NamedTuple):
    """Transitions as the objective sees them."""

    observation: jax.Array  # [D]
    action: jax.Array
    log_probability: jax.Array  # of the action, under the policy that took it
    advantage: jax.Array
    wanted: jax.Array  # what the value should have been


def compute_gae(
    think: Think, transitions: Transition, discount: Number, gae_lambda: Number
) -> tuple[Trajectory, Metrics]:
    """Advantages of transitions [T, B], and the values' explained variance of the returns."""
    shape, size = transitions.ended.shape, transitions.observation.shape[-1]
    both = jnp.concatenate([transitions.observation, transitions.following]).reshape(-1, size)
    logits, values = think(both)
    values, following = values.reshape(2, *shape)
    logits = logits[: logits.shape[0] // 2].reshape(*shape, -1)
    gain = returns.advantages(
        transitions.reward,
        values,
        following,
        transitions.terminated,
        transitions.ended,
        discount,
        gae_lambda,
    )
    log = log_probability(jax.nn.log_softmax(logits), transitions.action)
    made = Trajectory(transitions.observation, transitions.action, log, gain, gain + values)
    explained = metrics.explained_variance(values, made.wanted, jnp.ones(shape))
    return made, {"explained_variance": explained}


def objective(
    logits: jax.Array,
    values: jax.Array,
    batch: Trajectory,
    clip: Number,
    value: Number,
    entropy: Number,
) -> tuple[jax.Array, Metrics]:
    """The loss of a minibatch, its advantages brought to zero mean and unit deviation.

    Args:
      logits: [M, A], of the policy as it is now.
      values: [M], likewise.
      batch: [M] each.
      clip: of the ratio of probabilities, around 1.
      value: times half the mean squared error of the values.
      entropy: times the mean entropy of the policy, which is to be large.

    Returns:
      The loss, and it with its parts, the divergence from the policy that acted, and the share of
      ratios that were clipped.
    """
    log_policy = jax.nn.log_softmax(logits)
    log_ratio = log_probability(log_policy, batch.action) - batch.log_probability
    ratio = jnp.exp(log_ratio)
    gain = (batch.advantage - jnp.mean(batch.advantage)) / (jnp.std(batch.advantage) + 1e-8)
    clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
    policy = -jnp.mean(jnp.minimum(ratio * gain, clipped * gain))
    error = 0.5 * jnp.mean(jnp.square(values - batch.wanted))
    disorder = -jnp.mean(jnp.sum(jnp.exp(log_policy) * log_policy, axis=-1))
    loss = policy + value * error - entropy * disorder
    found = {
        "loss": loss,
        "policy_loss": policy,
        "value_loss": error,
        "entropy": disorder,
        # Near 1 the digits of ratio - 1 - log(ratio) would cancel.
        "kl": jnp.mean(jnp.expm1(log_ratio) - log_ratio),
        "clipped": jnp.mean((jnp.abs(ratio - 1) > clip).astype(jnp.float32)),
    }
    return loss, {name: metrics.scalar(value) for name, value in found.items()}


def log_probability(log_policy: jax.Array, action: jax.Array) -> jax.Array:
    """Log-probability of the action [...], from those of all actions [..., A]."""
    return jnp.take_along_axis(log_policy, action[..., None], axis=-1)[..., 0]
