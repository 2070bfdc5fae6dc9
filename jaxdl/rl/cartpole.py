"""A pole on a cart (Barto, Sutton & Anderson, 1983), as gymnasium's CartPole-v1.

Physics: float32 [4], position m, velocity m/s, angle rad, angular velocity rad/s.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.rl.environment import Environment, Physics
from jaxdl.task import Key

GRAVITY, FORCE, STEP = 9.8, 10.0, 0.02  # m/s^2, N, s
CART, POLE, HALF = 1.0, 0.1, 0.5  # kg, kg, m: half of the pole's length
FARTHEST, STEEPEST = 2.4, 12 * 2 * np.pi / 360  # m, rad


def environment() -> Environment:
    """A reward of 1 for each step, also the one with which the pole falls; 500 steps at most."""
    return Environment("CartPole-v1", 4, 2, 500, _reset, _step, lambda physics: physics, _sketch)


def _reset(key: Key) -> Physics:
    return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)


def _step(physics: Physics, action: jax.Array) -> tuple[Physics, jax.Array, jax.Array]:
    _, v, angle, turning = physics
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    force = jnp.where(action == 1, FORCE, -FORCE)
    pushed = (force + POLE * HALF * turning**2 * sin) / (CART + POLE)
    twist = (GRAVITY * sin - cos * pushed) / (HALF * (4 / 3 - POLE * cos**2 / (CART + POLE)))
    shove = pushed - POLE * HALF * twist * cos / (CART + POLE)
    # Euler's method, positions by the velocities before.
    new = physics + STEP * jnp.stack([v, shove, turning, twist])
    fallen = (jnp.abs(new[0]) > FARTHEST) | (jnp.abs(new[2]) > STEEPEST)
    return new, jnp.float32(1), fallen


def _sketch(physics: Physics) -> np.ndarray:
    x, _, angle, _ = np.asarray(physics, np.float64)
    at, track = 0.5 + 0.4 * x / FARTHEST, 0.3
    tip = at + 0.4 * np.sin(angle), track + 0.4 * np.cos(angle)
    return np.array([
        [0.02, track - 0.04, 0.98, track - 0.04, 0.005, 0.6],
        [at - 0.06, track, at + 0.06, track, 0.06, 0.3],
        [at, track, *tip, 0.02, 0.0],
    ])  # fmt: skip
