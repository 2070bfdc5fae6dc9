"""Tabular action values: exact ones by value iteration, learnt ones by Q-learning.

Shapes: S squares (states), A actions, B transitions.
"""

import jax
import jax.numpy as jnp

from jaxdl.rl import returns
from jaxdl.rl.grid import Table
from jaxdl.rl.returns import Number


def value_iteration(process: Table, discount: Number, tolerance: float = 1e-7) -> jax.Array:
    """Action values of the optimal policy, by value iteration (Bellman, 1957).

    Args:
      process: the decision process.
      discount: discount factor per step, from 0 to 1.
      tolerance: the iteration stops when no value changes by more than this.

    Returns:
      Action values, float32 [S, A].
    """
    reward, terminal = jnp.asarray(process.reward), jnp.asarray(process.terminal)

    def sweep(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        values, _ = carry
        following = jnp.where(terminal, 0, jnp.max(values, axis=-1)[process.following])
        new = reward + discount * following
        return new, jnp.max(jnp.abs(new - values))

    start = jnp.zeros(process.reward.shape), jnp.float32(jnp.inf)
    return jax.lax.while_loop(lambda carry: carry[1] > tolerance, sweep, start)[0]


def q_learning(
    values: jax.Array,
    square: jax.Array,
    action: jax.Array,
    reward: jax.Array,
    following: jax.Array,
    terminated: jax.Array,
    rate: Number,
    discount: Number,
) -> jax.Array:
    """One update of Q-learning (Watkins, 1989) from B transitions.

    Several transitions of the same square and action move its value by their mean: their sum could
    overshoot each of the targets.

    Args:
      values: action values [S, A].
      square: int32 [B], the squares before the step.
      action: int32 [B].
      reward: [B].
      following: int32 [B], the squares after the step.
      terminated: bool [B], whether the episode ends there.
      rate: learning rate.
      discount: discount factor per step, from 0 to 1.

    Returns:
      New action values [S, A].
    """
    next_values = values[following]
    targets = returns.td_target(reward, terminated, next_values, next_values, discount)
    errors = targets - values[square, action]
    entry = square, action
    duplicates = jnp.zeros_like(values).at[entry].add(1.0)[entry]
    return values.at[entry].add(rate * errors / duplicates)
