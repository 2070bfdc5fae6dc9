"""Proximal policy optimisation with a clipped objective (Schulman et al., 2017).

Shapes: T steps, B parallel episodes, M transitions of a minibatch, D values of an observation, A
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

# Actor-critic network: observations [B, D] -> logits [B, A] and values [B].
ActorCriticFn = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


class Trajectory(NamedTuple):
    """Transitions with the quantities of the objective; leading axes are [T, B] or [M].

    Attributes:
      observation: [..., D].
      action: int32 [...].
      log_probability: [...], of the action under the policy that took it.
      advantage: [...], generalised advantage estimate.
      wanted: [...], regression target of the value, advantage plus value.
    """

    observation: jax.Array
    action: jax.Array
    log_probability: jax.Array
    advantage: jax.Array
    wanted: jax.Array


def compute_gae(
    think: ActorCriticFn, transitions: Transition, discount: Number, gae_lambda: Number
) -> tuple[Trajectory, Metrics]:
    """Adds log-probabilities, advantages and value targets to transitions.

    Args:
      think: actor-critic network, observations [B, D] -> logits [B, A] and values [B].
      transitions: [T, B, ...].
      discount: discount factor per step, from 0 to 1.
      gae_lambda: lambda of generalised advantage estimation, from 0 to 1.

    Returns:
      The trajectory [T, B, ...], and the metric `explained_variance` of the value targets by the
      values.
    """
    shape, size = transitions.ended.shape, transitions.observation.shape[-1]
    observations = jnp.concatenate([transitions.observation, transitions.following])
    logits, values = think(observations.reshape(-1, size))
    values, following = values.reshape(2, *shape)
    logits = logits[: logits.shape[0] // 2].reshape(*shape, -1)
    advantages = returns.advantages(
        transitions.reward,
        values,
        following,
        transitions.terminated,
        transitions.ended,
        discount,
        gae_lambda,
    )
    log_policy = jax.nn.log_softmax(logits)
    trajectory = Trajectory(
        transitions.observation,
        transitions.action,
        log_probability(log_policy, transitions.action),
        advantages,
        advantages + values,
    )
    explained = metrics.explained_variance(values, trajectory.wanted, jnp.ones(shape))
    return trajectory, {"explained_variance": explained}


def objective(
    logits: jax.Array,
    values: jax.Array,
    batch: Trajectory,
    clip: Number,
    value: Number,
    entropy: Number,
) -> tuple[jax.Array, Metrics]:
    """Loss of a minibatch: clipped policy loss, value loss and entropy bonus.

    Advantages are normalised to zero mean and unit standard deviation over the minibatch.

    Args:
      logits: [M, A], of the current policy.
      values: [M], of the current critic.
      batch: transitions [M, ...].
      clip: greatest deviation of the probability ratio from 1.
      value: weight of the value loss, half the mean squared error.
      entropy: weight of the policy's mean entropy, which is subtracted from the loss.

    Returns:
      The loss, a mean over M, and metrics: the loss and its parts, `kl` (the divergence from the
      policy that acted) and `clipped` (the fraction of ratios beyond the clip).
    """
    log_policy = jax.nn.log_softmax(logits)
    log_ratio = log_probability(log_policy, batch.action) - batch.log_probability
    ratio = jnp.exp(log_ratio)
    deviation = jnp.std(batch.advantage) + 1e-8
    advantage = (batch.advantage - jnp.mean(batch.advantage)) / deviation
    clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
    policy_loss = -jnp.mean(jnp.minimum(ratio * advantage, clipped * advantage))
    value_loss = 0.5 * jnp.mean(jnp.square(values - batch.wanted))
    mean_entropy = -jnp.mean(jnp.sum(jnp.exp(log_policy) * log_policy, axis=-1))
    loss = policy_loss + value * value_loss - entropy * mean_entropy
    scalars = {
        "loss": loss,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": mean_entropy,
        # expm1 keeps the digits that ratio - 1 - log(ratio) loses for ratios near 1.
        "kl": jnp.mean(jnp.expm1(log_ratio) - log_ratio),
        "clipped": jnp.mean((jnp.abs(ratio - 1) > clip).astype(jnp.float32)),
    }
    return loss, {name: metrics.scalar(scalar) for name, scalar in scalars.items()}


def log_probability(log_policy: jax.Array, action: jax.Array) -> jax.Array:
    """Selects the log-probability of an action.

    Args:
      log_policy: [..., A], log-probabilities of all actions.
      action: int32 [...].

    Returns:
      Log-probabilities [...].
    """
    return jnp.take_along_axis(log_policy, action[..., None], axis=-1)[..., 0]
