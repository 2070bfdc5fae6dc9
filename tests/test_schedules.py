import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl import schedules

# Factors after t of T = 100 steps, without a warm-up.
CORNERS = {
    "constant": {0: 1, 50: 1, 100: 1},
    "step": {0: 1, 49: 1, 50: 0.1, 74: 0.1, 75: 0.01, 100: 0.01},
    "exponential": {0: 1, 25: 0.01**0.25, 50: 0.1, 100: 0.01},
    "cosine": {0: 1, 25: (1 + np.cos(np.pi / 4)) / 2, 50: 0.5, 100: 0},
    "linear": {0: 1, 25: 0.75, 50: 0.5, 100: 0},
    "polynomial": {0: 1, 25: 0.75**2, 50: 0.25, 100: 0},
    "one_cycle": {0: 1 / 25, 15: (1 + 1 / 25) / 2, 30: 1, 65: (1 + 4e-6) / 2, 100: 4e-6},
    "inverse_sqrt": {0: 1, 3: 0.5, 99: 0.1},
}


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_corners(name):
    factor = schedules.schedule(name, 100, 0)
    for step, value in CORNERS[name].items():
        assert float(factor(jnp.int32(step))) == pytest.approx(value, rel=2e-5, abs=1e-7)


@settings(max_examples=25)
@given(
    name=st.sampled_from(sorted(schedules.SCHEDULES)),
    steps=st.integers(1, 60),
    warmup=st.integers(0, 60),
)
def test_every_schedule_rises_linearly_and_stays_within_one(name, steps, warmup):
    warmup = min(warmup, steps)
    factor = schedules.schedule(name, steps, warmup)
    values = np.array([float(factor(n)) for n in range(steps + 1)])
    assert (values >= -1e-7).all()
    assert (values <= 1 + 1e-6).all()
    if warmup:
        rise = np.linspace(1 / (warmup + 1), 1, warmup + 1)[:-1]
        np.testing.assert_allclose(values[:warmup], rise, rtol=1e-5)
        assert values[warmup] == pytest.approx(1, rel=1e-5)
        assert (np.diff(values[warmup:]) <= 1e-7).all()  # once up, never again


def test_inverse_sqrt_takes_the_width_of_its_warmup():
    factor = schedules.schedule("inverse_sqrt", 1000, 100)
    for step in (100, 400, 900):  # Vaswani et al.: as step**-0.5, from its peak at step W on
        assert float(factor(step)) == pytest.approx((100 / step) ** 0.5, rel=1e-5)
