"""Cart-pole (Barto, Sutton & Anderson, 1983): balances a pole on a cart.

The dynamics are those of gymnasium's CartPole-v1.

Physics: float32 [4], position in m, velocity in m/s, angle in rad, angular velocity in rad/s.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.rl.environment import Environment, Physics
from jaxdl.task import Key

GRAVITY, FORCE, STEP = 9.8, 10.0, 0.02  # m/s^2, N, s
CART, POLE, HALF = 1.0, 0.1, 0.5  # mass in kg, mass in kg, half of the pole's length in m
FARTHEST, STEEPEST = 2.4, 12 * 2 * np.pi / 360  # m, rad


def environment() -> Environment:
    """CartPole-v1: reward 1 per step, the terminal step included, for at most 500 steps."""
    return Environment("CartPole-v1", 4, 2, 500, _reset, _step, lambda physics: physics, _sketch)


def _reset(key: Key) -> Physics:
    return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)


def _step(physics: Physics, action: jax.Array) -> tuple[Physics, jax.Array, jax.Array]:
    _, velocity, angle, angular_velocity = physics
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    force = jnp.where(action == 1, FORCE, -FORCE)
    pushed = (force + POLE * HALF * angular_velocity**2 * sin) / (CART + POLE)
    length = HALF * (4 / 3 - POLE * cos**2 / (CART + POLE))
    angular_acceleration = (GRAVITY * sin - cos * pushed) / length
    acceleration = pushed - POLE * HALF * angular_acceleration * cos / (CART + POLE)
    # Explicit Euler: positions advance by the velocities before the step.
    slopes = jnp.stack([velocity, acceleration, angular_velocity, angular_acceleration])
    new = physics + STEP * slopes
    terminated = (jnp.abs(new[0]) > FARTHEST) | (jnp.abs(new[2]) > STEEPEST)
    return new, jnp.float32(1), terminated


def _sketch(physics: Physics) -> np.ndarray:
    x, _, angle, _ = np.asarray(physics, np.float64)
    cart, track = 0.5 + 0.4 * x / FARTHEST, 0.3
    tip = cart + 0.4 * np.sin(angle), track + 0.4 * np.cos(angle)
    return np.array([
        [0.02, track - 0.04, 0.98, track - 0.04, 0.005, 0.6],
        [cart - 0.06, track, cart + 0.06, track, 0.06, 0.3],
        [cart, track, *tip, 0.02, 0.0],
    ])  # fmt: skip
