"""Discounted returns, and generalised advantages (Schulman et al., 2016).

Shapes: T steps, B episodes side by side, A actions.
"""

import jax
import jax.numpy as jnp

Number = float | jax.Array


def discounted(
    rewards: jax.Array, ended: jax.Array, after: jax.Array, discount: Number
) -> jax.Array:
    """The sum of the rewards from each step on, each `discount` times the one before it.

    Args:
      rewards: [T, B].
      ended: bool [T, B]: the episode ends with this step.
      after: [B], the value of what follows the last step, where no episode ends with it.
      discount: from 0 to 1.

    Returns:
      [T, B].
    """

    def back(total: jax.Array, given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reward, last = given
        total = reward + discount * jnp.where(last, 0, total)
        return total, total

    return jax.lax.scan(back, after, (rewards, ended), reverse=True)[1]


def advantages(
    rewards: jax.Array,
    values: jax.Array,
    following: jax.Array,
    terminated: jax.Array,
    ended: jax.Array,
    discount: Number,
    gae_lambda: Number,
) -> jax.Array:
    """Generalised advantages: sums of errors of the values, (discount * trace)**n times the n-th.

    Args:
      rewards: [T, B].
      values: [T, B], of what is observed before each step.
      following: [T, B], of what is observed after it, in the same episode.
      terminated: bool [T, B]: nothing follows, so that the value after it is zero.
      ended: bool [T, B]: terminated, or cut off, when the value after it counts.
      discount: of rewards, from 0 to 1.
      gae_lambda: the paper's lambda, from 0 (one step) to 1 (returns minus values).

    Returns:
      [T, B].
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
    """A reward and the discounted value of one action after it: what Q-learning wants values to be.

    Args:
      rewards: [B].
      terminated: bool [B]: nothing follows.
      following: [B, A], values of the actions after it.
      chooser: [B, A], of which the greatest says what action is taken: `following` itself (Mnih et
        al., 2015), or other values of the same actions (van Hasselt et al., 2016).
      discount: from 0 to 1.

    Returns:
      [B].
    """
    best = jnp.argmax(chooser, axis=-1, keepdims=True)
    value = jnp.take_along_axis(following, best, axis=-1)[..., 0]
    return rewards + discount * jnp.where(terminated, 0, value)
