"""Learning-rate schedules with a peak of 1. A task multiplies them by its learning rate.

Each schedule takes T, the number of steps after the warm-up, and W, the number of warm-up steps. It
returns a function from step t to a factor in [0, 1], where t counts from the end of the warm-up.
T, W and t may be traced.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxdl.hyperparameters import is_static

Steps = int | jax.Array
Schedule = Callable[[Steps, Steps], optax.Schedule]
START, END = 1 / 25, 4e-6  # first and last factor of the one-cycle schedule
RISE = 0.3  # fraction of the one-cycle schedule's steps in which it rises


def constant(steps: Steps, warmup: Steps) -> optax.Schedule:
    """Constant factor of 1."""
    del steps, warmup
    return lambda count: jnp.ones(jnp.shape(count))


def step(steps: Steps, warmup: Steps) -> optax.Schedule:
    """Step decay: 1, then 0.1 from T / 2 on, then 0.01 from 3 T / 4 on (He et al., 2016).

    >>> [round(float(step(100, 0)(t)), 2) for t in (0, 49, 50, 75)]
    [1.0, 1.0, 0.1, 0.01]
    """
    del warmup
    first, second = jnp.maximum(steps // 2, 1), jnp.maximum(steps * 3 // 4, 2)
    return lambda count: jnp.where(count < first, 1.0, jnp.where(count < second, 0.1, 0.01))


def exponential(steps: Steps, warmup: Steps) -> optax.Schedule:
    """Exponential decay, 0.01**(t / T)."""
    del warmup
    return lambda count: 0.01 ** jnp.maximum(count / jnp.maximum(steps, 1), 0)


def cosine(steps: Steps, warmup: Steps) -> optax.Schedule:
    """Cosine decay, (1 + cos(pi t / T)) / 2 (Loshchilov & Hutter, 2017).

    >>> [round(float(cosine(100, 0)(t)), 3) for t in (0, 50, 100)]
    [1.0, 0.5, 0.0]
    """
    del warmup
    return lambda count: _half_cosine(_progress(count, steps))


def linear(steps: Steps, warmup: Steps) -> optax.Schedule:
    """Linear decay, 1 - t / T."""
    del warmup
    return lambda count: 1 - _progress(count, steps)


def polynomial(steps: Steps, warmup: Steps) -> optax.Schedule:
    """Quadratic decay, (1 - t / T)**2."""
    del warmup
    return lambda count: (1 - _progress(count, steps)) ** 2


def one_cycle(steps: Steps, warmup: Steps) -> optax.Schedule:
    """One-cycle schedule (Smith & Topin, 2018): cosine from 1/25 up to 1 at 0.3 T, down to 4e-6.

    After a warm-up it only falls. The paper's ramps are linear, and it also varies the momentum,
    which here is constant.
    """

    def fall(progress: jax.Array) -> jax.Array:
        return END + (1 - END) * _half_cosine(progress)

    peak = jnp.maximum(jnp.floor(RISE * steps), 1)
    if not is_static(warmup, 0):
        peak = jnp.where(warmup == 0, peak, 0)

    def factor(count: jax.Array) -> jax.Array:
        rise = 1 - (1 - START) * _half_cosine(_progress(count, peak))
        return jnp.where(count < peak, rise, fall(_progress(count - peak, steps - peak)))

    return factor


def inverse_sqrt(steps: Steps, warmup: Steps) -> optax.Schedule:
    """Inverse square root decay, sqrt(W / (W + t)) (Vaswani et al., 2017).

    Without a warm-up, W is 1.
    """
    del steps
    width = jnp.maximum(warmup, 1)
    # During a warm-up t is negative; `schedule` computes this value, but does not use it.
    return lambda count: (width / (width + jnp.maximum(count, 0))) ** 0.5


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
    "linear": linear,
    "polynomial": polynomial,
    "one_cycle": one_cycle,
    "inverse_sqrt": inverse_sqrt,
}


def schedule(name: str, steps: int, warmup_steps: Steps) -> optax.Schedule:
    """Learning-rate schedule with linear warm-up.

    Args:
      name: key of `SCHEDULES`, the decay after the warm-up.
      steps: number of steps of the whole run.
      warmup_steps: number of steps in which the factor rises linearly to 1. It starts at
        1 / (warmup_steps + 1), so that no step is wasted on a rate of zero.

    Returns:
      A function from the step, which counts from 0, to a factor of the peak learning rate.

    >>> factor = schedule("linear", steps=8, warmup_steps=4)
    >>> [round(float(factor(t)), 2) for t in range(8)]
    [0.2, 0.4, 0.6, 0.8, 1.0, 0.75, 0.5, 0.25]
    """
    decay = SCHEDULES[name](steps - warmup_steps, warmup_steps)
    if is_static(warmup_steps, 0):
        return decay

    def factor(count: jax.Array) -> jax.Array:
        rise = (1 + count) / (1 + warmup_steps)
        return jnp.where(count < warmup_steps, rise, decay(count - warmup_steps))

    return factor


def _progress(count: jax.Array, steps: Steps) -> jax.Array:
    """Fraction t / T of the schedule, clipped to [0, 1]."""
    return jnp.clip(count / jnp.maximum(steps, 1), 0, 1)


def _half_cosine(progress: jax.Array) -> jax.Array:
    """Falls from 1 at progress 0 to 0 at progress 1."""
    return (1 + jnp.cos(jnp.pi * progress)) / 2
