"""A warm-up that is an argument of the compiled step gives the rates of one that is a constant."""

import dataclasses

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings

from jaxdl import schedules
from jaxdl.tasks import supervised_config
from jaxdl.tasks.supervised_config import SupervisedConfig

NAMES = sorted(schedules.SCHEDULES)
LONGEST = 40
TRACED = {  # compiled once for each: the warm-up and the step are arguments
    (name, steps): jax.jit(
        lambda warmup, count, name=name, steps=steps: jax.vmap(
            schedules.schedule(name, steps, warmup)
        )(count)
    )
    for name in NAMES
    for steps in (1, 2, 5, LONGEST)
}


@settings(max_examples=60)
@given(
    case=st.sampled_from(sorted(TRACED)),
    warmup=st.integers(0, LONGEST),
    kind=st.sampled_from([np.int32, np.float32]),  # of --warmup_steps, and of --warmup_epochs
)
def test_a_traced_warm_up_is_the_constant_one(case, warmup, kind):
    name, steps = case
    warmup, counts = min(warmup, steps), jnp.arange(LONGEST + 3)
    found = TRACED[case](kind(warmup), counts)
    wanted = [float(schedules.schedule(name, steps, warmup)(n)) for n in counts]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_a_warm_up_of_a_vmap_is_the_one_alone(name):
    warmups, counts = np.array([0.0, 1.0, 7.0, 20.0], np.float32), jnp.arange(LONGEST)
    together = jax.jit(jax.vmap(lambda w: jax.vmap(schedules.schedule(name, LONGEST, w))(counts)))
    for member, warmup in zip(together(warmups), warmups, strict=True):
        alone = jax.vmap(schedules.schedule(name, LONGEST, int(warmup)))(counts)
        np.testing.assert_allclose(member, alone, rtol=1e-6, atol=1e-7)


EPOCHS = [0.0, 0.01, 0.1, 1 / 6, 0.5, 1.0, 2.0, 3.5, 99.0]  # of three steps; 0.01 and 0.1: of none


@pytest.mark.parametrize("name", [*NAMES, "plateau"])
def test_epochs_of_warm_up_may_be_traced(name):
    config = SupervisedConfig(schedule=name, batch_size=6, num_epochs=10)
    counts = jnp.arange(30)

    def rates(epochs):
        factor = supervised_config.schedule(dataclasses.replace(config, warmup_epochs=epochs), 18)
        return jax.vmap(factor)(counts)

    together = jax.jit(jax.vmap(rates))(jnp.asarray(EPOCHS))
    for member, epochs in zip(together, EPOCHS, strict=True):
        np.testing.assert_allclose(member, rates(epochs), rtol=1e-6, atol=1e-7)
        rising = min(round(3 * epochs), 15)
        plain = "constant" if name == "plateau" else name
        wanted = jax.vmap(schedules.schedule(plain, 30, rising))(counts)
        np.testing.assert_allclose(member, wanted, rtol=1e-6, atol=1e-7)


OPTAX = {
    "constant": lambda steps: optax.constant_schedule(1.0),
    "step": lambda steps: optax.piecewise_constant_schedule(
        1.0, {max(1, steps // 2): 0.1, max(2, steps * 3 // 4): 0.1}
    ),
    "exponential": lambda steps: optax.exponential_decay(1.0, steps, 0.01),
    "cosine": lambda steps: optax.cosine_decay_schedule(1.0, steps),
    "linear": lambda steps: optax.linear_schedule(1.0, 0.0, steps),
    "polynomial": lambda steps: optax.polynomial_schedule(1.0, 0.0, 2, steps),
    "one_cycle": lambda steps: optax.cosine_onecycle_schedule(steps, 1.0),
}


@pytest.mark.parametrize("steps", [4, 10, 30, 100, 1000])
@pytest.mark.parametrize("name", OPTAX)
def test_they_are_optaxs(name, steps):
    counts = jnp.arange(steps + 5)
    found = jax.vmap(schedules.schedule(name, steps, 0))(counts)
    wanted = jax.vmap(OPTAX[name](steps))(counts)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    if name == "one_cycle":
        return
    # After a warm-up it is the same over the steps that are left.
    warmup = steps // 4
    found = jax.vmap(schedules.schedule(name, steps, warmup))(counts)
    rise = optax.linear_schedule(1 / (warmup + 1), 1.0, warmup)
    after = OPTAX[name](steps - warmup)
    wanted = jax.vmap(optax.join_schedules([rise, after], [warmup]))(counts)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
