"""Learning-rate schedules of unit peak: a task multiplies them by its rate, which may be traced.

Each takes T, the number of steps after the warm-up, and W, that of the warm-up, and returns
step t -> factor in [0, 1], where t counts from the end of the warm-up.
"""

from collections.abc import Callable

import jax.numpy as jnp
import optax

Schedule = Callable[[int, int], optax.Schedule]


def constant(steps: int, warmup: int) -> optax.Schedule:
    """1 throughout."""
    del steps, warmup
    return optax.constant_schedule(1.0)


def step(steps: int, warmup: int) -> optax.Schedule:
    """1, from T / 2 on 0.1, from 3 T / 4 on 0.01 (He et al., 2016)."""
    del warmup
    falls = {max(1, steps // 2): 0.1, max(2, steps * 3 // 4): 0.1}
    return optax.piecewise_constant_schedule(1.0, falls)


def exponential(steps: int, warmup: int) -> optax.Schedule:
    """0.01**(t / T)."""
    del warmup
    return optax.exponential_decay(1.0, max(steps, 1), 0.01)


def cosine(steps: int, warmup: int) -> optax.Schedule:
    """(1 + cos(pi t / T)) / 2 (Loshchilov & Hutter, 2017)."""
    del warmup
    return optax.cosine_decay_schedule(1.0, max(steps, 1))


def linear(steps: int, warmup: int) -> optax.Schedule:
    """1 - t / T."""
    del warmup
    return optax.linear_schedule(1.0, 0.0, max(steps, 1))


def polynomial(steps: int, warmup: int) -> optax.Schedule:
    """(1 - t / T)**2."""
    del warmup
    return optax.polynomial_schedule(1.0, 0.0, 2, max(steps, 1))


def one_cycle(steps: int, warmup: int) -> optax.Schedule:
    """Half a cosine from 1/25 up to 1 at 0.3 T, and down to 4e-6; after a warm-up, down alone.

    After Smith & Topin (2018), whose ramps are straight; the momentum stays as it is.
    """
    if warmup:
        return optax.cosine_decay_schedule(1.0, max(steps, 1), alpha=4e-6)
    # Of fewer steps than four, optax's rise has none, and divides by it.
    return optax.cosine_onecycle_schedule(max(steps, 4), 1.0)


def inverse_sqrt(steps: int, warmup: int) -> optax.Schedule:
    """sqrt(W / (W + t)) (Vaswani et al., 2017); without a warm-up, W is 1."""
    del steps
    width = max(warmup, 1)
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


def schedule(name: str, steps: int, warmup_steps: int) -> optax.Schedule:
    """A schedule of `SCHEDULES` over `steps`, its first `warmup_steps` a linear rise to 1.

    The rise starts at 1 / (warmup_steps + 1), so that no step is wasted on a rate of zero.
    """
    decay = SCHEDULES[name](steps - warmup_steps, warmup_steps)
    if warmup_steps == 0:
        return decay
    rise = optax.linear_schedule(1 / (warmup_steps + 1), 1.0, warmup_steps)
    return optax.join_schedules([rise, decay], [warmup_steps])
