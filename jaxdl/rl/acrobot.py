"""Acrobot (Sutton, 1996): a double pendulum that swings up by a torque at its joint.

The dynamics are those of gymnasium's Acrobot-v1.

Physics: float32 [4], angle of the first link in rad, angle of the second link relative to the first
in rad, and their angular velocities in rad/s.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.rl.environment import Environment, Physics
from jaxdl.task import Key

STEP, GRAVITY = 0.2, 9.8  # s, m/s^2; links of 1 m and 1 kg, centre of mass at 0.5 m, inertia 1
FASTEST = (4 * np.pi, 9 * np.pi)  # rad/s


def environment() -> Environment:
    """Acrobot-v1: reward -1 per step until the free end is above 1 m, for at most 500 steps."""
    return Environment("Acrobot-v1", 6, 3, 500, _reset, _step, _observe, _sketch)


def _reset(key: Key) -> Physics:
    return jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1)


def _observe(physics: Physics) -> jax.Array:
    a, b, va, vb = physics
    return jnp.stack([jnp.cos(a), jnp.sin(a), jnp.cos(b), jnp.sin(b), va, vb])


def _step(physics: Physics, action: jax.Array) -> tuple[Physics, jax.Array, jax.Array]:
    torque = action.astype(jnp.float32) - 1
    # One step of the fourth-order Runge-Kutta method.
    k1 = _derivative(physics, torque)
    k2 = _derivative(physics + STEP / 2 * k1, torque)
    k3 = _derivative(physics + STEP / 2 * k2, torque)
    k4 = _derivative(physics + STEP * k3, torque)
    a, b, va, vb = physics + STEP / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    velocities = [jnp.clip(v, -limit, limit) for v, limit in zip((va, vb), FASTEST, strict=True)]
    new = jnp.stack([_wrap(a), _wrap(b), *velocities])
    terminated = -jnp.cos(new[0]) - jnp.cos(new[0] + new[1]) > 1
    return new, jnp.where(terminated, 0.0, -1.0), terminated


def _derivative(physics: Physics, torque: jax.Array) -> jax.Array:
    """Time derivative of the physics: the equations of motion in Sutton and Barto's book."""
    a, b, va, vb = physics
    d1 = 0.25 + (1 + 0.25 + jnp.cos(b)) + 2
    d2 = 0.25 + 0.5 * jnp.cos(b) + 1
    phi2 = 0.5 * GRAVITY * jnp.cos(a + b - jnp.pi / 2)
    phi1 = (
        -0.5 * vb**2 * jnp.sin(b)
        - vb * va * jnp.sin(b)
        + 1.5 * GRAVITY * jnp.cos(a - jnp.pi / 2)
        + phi2
    )
    numerator = torque + d2 / d1 * phi1 - 0.5 * va**2 * jnp.sin(b) - phi2
    ab = numerator / (0.25 + 1 - d2**2 / d1)
    return jnp.stack([va, vb, -(d2 * ab + phi1) / d1, ab])


def _wrap(angle: jax.Array) -> jax.Array:
    """Wraps an angle into [-pi, pi)."""
    return jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi


def _sketch(physics: Physics) -> np.ndarray:
    a, b = np.asarray(physics, np.float64)[:2]
    joint = 0.5 + 0.2 * np.sin(a), 0.5 - 0.2 * np.cos(a)
    end = joint[0] + 0.2 * np.sin(a + b), joint[1] - 0.2 * np.cos(a + b)
    return np.array([
        [0.05, 0.7, 0.95, 0.7, 0.005, 0.6],
        [0.5, 0.5, *joint, 0.03, 0.3],
        [*joint, *end, 0.03, 0.0],
    ])  # fmt: skip
