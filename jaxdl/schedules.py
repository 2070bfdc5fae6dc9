"""Learning-rate schedules of unit peak: a task multiplies them by its learning rate.

Each takes T, the number of steps after the warm-up, and W, the number of warm-up steps, and returns
step t -> factor in [0, 1], where t counts from the end of the warm-up. T, W and t may be traced.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxdl.optim import is_static

Steps = int | jax.Array
Schedule = Callable[[Steps, Steps], optax.Schedule]
START, END = 1 / 25, 4e-6  # of the one-cycle schedule, as shares of its peak
RISE = 0.3  # share of the one-cycle schedule in which it rises


def constant(steps: Steps, warmup: Steps) -> optax.Schedule:
    """1 throughout."""
    del steps, warmup
    return lambda count: jnp.ones(jnp.shape(count))


def step(steps: Steps, warmup: Steps) -> optax.Schedule:
    """1, from T / 2 on 0.1, from 3 T / 4 on 0.01 (He et al., 2016)."""
    del warmup
    first, second = jnp.maximum(steps // 2, 1), jnp.maximum(steps * 3 // 4, 2)
    return lambda count: jnp.where(count < first, 1.0, jnp.where(count < second, 0.1, 0.01))


def exponential(steps: Steps, warmup: Steps) -> optax.Schedule:
    """0.01**(t / T)."""
    del warmup
    return lambda count: 0.01 ** jnp.maximum(count / jnp.maximum(steps, 1), 0)


def cosine(steps: Steps, warmup: Steps) -> optax.Schedule:
    """(1 + cos(pi t / T)) / 2 (Loshchilov & Hutter, 2017)."""
    del warmup
    return lambda count: _half_cosine(_share(count, steps))


def linear(steps: Steps, warmup: Steps) -> optax.Schedule:
    """1 - t / T."""
    del warmup
    return lambda count: 1 - _share(count, steps)


def polynomial(steps: Steps, warmup: Steps) -> optax.Schedule:
    """(1 - t / T)**2."""
    del warmup
    return lambda count: (1 - _share(count, steps)) ** 2


def one_cycle(steps: Steps, warmup: Steps) -> optax.Schedule:
    """Half a cosine from 1/25 up to 1 at 0.3 T, and down to 4e-6; after a warm-up, down alone.

    After Smith & Topin (2018), whose ramps are straight; the momentum stays as it is.
    """

    def fall(share: jax.Array) -> jax.Array:
        return END + (1 - END) * _half_cosine(share)

    peak = jnp.maximum(jnp.floor(RISE * steps), 1)
    if not is_static(warmup, 0):
        peak = jnp.where(warmup == 0, peak, 0)

    def factor(count: jax.Array) -> jax.Array:
        rise = 1 - (1 - START) * _half_cosine(_share(count, peak))
        return jnp.where(count < peak, rise, fall(_share(count - peak, steps - peak)))

    return factor


def inverse_sqrt(steps: Steps, warmup: Steps) -> optax.Schedule:
    """sqrt(W / (W + t)) (Vaswani et al., 2017); without a warm-up, W is 1."""
    del steps
    width = jnp.maximum(warmup, 1)
    # A warm-up asks for steps before its end, too, and leaves them.
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
    """A schedule of `SCHEDULES` over `steps`, its first `warmup_steps` a linear rise to 1.

    The rise starts at 1 / (warmup_steps + 1), so that no step is wasted on a rate of zero.
    """
    decay = SCHEDULES[name](steps - warmup_steps, warmup_steps)
    if is_static(warmup_steps, 0):
        return decay

    def factor(count: jax.Array) -> jax.Array:
        rise = (1 + count) / (1 + warmup_steps)
        return jnp.where(count < warmup_steps, rise, decay(count - warmup_steps))

    return factor


def _share(count: jax.Array, steps: Steps) -> jax.Array:
    """Share t / T of the schedule, kept within 0 and 1."""
    return jnp.clip(count / jnp.maximum(steps, 1), 0, 1)


def _half_cosine(share: jax.Array) -> jax.Array:
    """From 1 at a share of 0 down to 0 at 1."""
    return (1 + jnp.cos(jnp.pi * share)) / 2
