"""Discounted returns, generalised advantage estimates and one-step TD targets.

Shapes: T steps, B parallel episodes or transitions, A actions.
"""

import jax
import jax.numpy as jnp

Number = float | jax.Array


def discounted(
    rewards: jax.Array, ended: jax.Array, after: jax.Array, discount: Number
) -> jax.Array:
    """Discounted return from each step on, within its episode.

    Args:
      rewards: [T, B].
      ended: bool [T, B], whether an episode ends with the step.
      after: [B], value of the state after the last step; unused if an episode ends there.
      discount: discount factor per step, from 0 to 1.

    Returns:
      Returns [T, B].

    >>> rewards, ended = jnp.ones((3, 1)), jnp.zeros((3, 1), bool)
    >>> discounted(rewards, ended, jnp.zeros(1), 0.5)[:, 0].tolist()
    [1.75, 1.5, 1.0]
    """

    def backward(
        total: jax.Array, step: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        reward, last = step
        total = reward + discount * jnp.where(last, 0, total)
        return total, total

    return jax.lax.scan(backward, after, (rewards, ended), reverse=True)[1]


def advantages(
    rewards: jax.Array,
    values: jax.Array,
    following: jax.Array,
    terminated: jax.Array,
    ended: jax.Array,
    discount: Number,
    gae_lambda: Number,
) -> jax.Array:
    """Generalised advantage estimation (Schulman et al., 2016).

    The advantage of a step is the sum of the TD errors from it on, the n-th of them weighted by
    (discount * gae_lambda)**n.

    Args:
      rewards: [T, B].
      values: [T, B], values of the observations before each step.
      following: [T, B], values of the observations after each step, in the same episode.
      terminated: bool [T, B], whether the step leads to a terminal state, whose value is zero.
      ended: bool [T, B], whether the episode is terminated or cut off; after a cut-off the value
        of the next observation counts.
      discount: discount factor per step, from 0 to 1.
      gae_lambda: the paper's lambda, from 0 (one-step TD error) to 1 (returns minus values).

    Returns:
      Advantages [T, B].
    """
    errors = rewards + discount * jnp.where(terminated, 0, following) - values
    return discounted(errors, ended, jnp.zeros_like(errors[0]), discount * gae_lambda)


def td_target(
    rewards: jax.Array,
    terminated: jax.Array,
    following: jax.Array,
    chooser: jax.Array,
    discount: Number,
) -> jax.Array:
    """One-step TD target of Q-learning (double DQN if `chooser` differs from `following`).

    Args:
      rewards: [B].
      terminated: bool [B], whether the next state is terminal, with value zero.
      following: [B, A], action values of the next state.
      chooser: [B, A], values whose greatest selects the next action: `following` itself (Mnih et
        al., 2015), or those of another network (double DQN, van Hasselt et al., 2016).
      discount: discount factor per step, from 0 to 1.

    Returns:
      Targets [B].

    >>> values, end = jnp.array([[1.0, 2.0]]), jnp.array([False])
    >>> td_target(jnp.array([1.0]), end, values, values, 0.5).tolist()
    [2.0]
    """
    best = jnp.argmax(chooser, axis=-1, keepdims=True)
    value = jnp.take_along_axis(following, best, axis=-1)[..., 0]
    return rewards + discount * jnp.where(terminated, 0, value)
