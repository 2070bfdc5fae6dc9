"""Values of all squares and actions in a table: exactly, and learnt step by step.

Shapes: S squares, A actions, B transitions.
"""

import jax
import jax.numpy as jnp

from jaxdl.rl import returns
from jaxdl.rl.grid import Table
from jaxdl.rl.returns import Number


def value_iteration(process: Table, discount: Number, tolerance: float = 1e-7) -> jax.Array:
    """The value of each action where the best ones follow: float32 [S, A] (Bellman, 1957).

    Sweeps until none changes by more than `tolerance`.
    """
    reward, terminal = jnp.asarray(process.reward), jnp.asarray(process.terminal)

    def sweep(now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        values, _ = now
        after = jnp.where(terminal, 0, jnp.max(values, axis=-1)[process.following])
        new = reward + discount * after
        return new, jnp.max(jnp.abs(new - values))

    start = jnp.zeros(process.reward.shape), jnp.float32(jnp.inf)
    return jax.lax.while_loop(lambda now: now[1] > tolerance, sweep, start)[0]


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
    """Moves values [S, A] towards what transitions [B] found (Watkins, 1989).

    Transitions of one square and action move its value by their mean: the sum of many would go
    beyond what each of them wants.
    """
    then = values[following]
    wanted = returns.td_target(reward, terminated, then, then, discount)
    error = wanted - values[square, action]
    at = square, action
    same = jnp.zeros_like(values).at[at].add(1.0)[at]
    return values.at[at].add(rate * error / same)
