"""Learning-rate schedules of unit peak: a task multiplies them by its rate, which may be traced.

Each takes the number of steps and returns step -> factor in [0, 1].
"""

from collections.abc import Callable

import optax

Schedule = Callable[[int], optax.Schedule]


def cosine(steps: int) -> optax.Schedule:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter, 2017)."""
    return optax.cosine_decay_schedule(1.0, max(steps, 1))


def step(steps: int) -> optax.Schedule:
    """1, then 0.1 after half of the steps, then 0.01 after three quarters (He et al., 2016)."""
    falls = {max(1, steps // 2): 0.1, max(1, steps * 3 // 4): 0.1}
    return optax.piecewise_constant_schedule(1.0, falls)


def constant(steps: int) -> optax.Schedule:
    """1 throughout."""
    del steps
    return optax.constant_schedule(1.0)


SCHEDULES: dict[str, Schedule] = {"cosine": cosine, "step": step, "constant": constant}


def schedule(name: str, steps: int, warmup_steps: int) -> optax.Schedule:
    """A schedule of `SCHEDULES` over `steps`, its first `warmup_steps` a linear rise to 1.

    The rise starts at 1 / (warmup_steps + 1), so that no step is wasted on a rate of zero.
    """
    decay = SCHEDULES[name](steps - warmup_steps)
    if warmup_steps == 0:
        return decay
    rise = optax.linear_schedule(1 / (warmup_steps + 1), 1.0, warmup_steps)
    return optax.join_schedules([rise, decay], [warmup_steps])
