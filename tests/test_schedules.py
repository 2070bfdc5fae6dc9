import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl import schedules


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(schedules.SCHEDULES)),
    steps=st.integers(1, 60),
    warmup=st.integers(0, 60),
)
def test_every_schedule_rises_to_one_and_stays_within(name, steps, warmup):
    warmup = min(warmup, steps)
    factor = schedules.schedule(name, steps, warmup)
    values = np.array([float(factor(n)) for n in range(steps + 1)])
    assert (values >= -1e-7).all()
    assert (values <= 1 + 1e-7).all()
    if warmup:
        assert values[0] == pytest.approx(1 / (warmup + 1), rel=1e-5)
        assert (np.diff(values[: warmup + 1]) > 0).all()
        assert values[warmup] == pytest.approx(1)


def test_cosine_corners():
    factor = schedules.schedule("cosine", 110, 10)
    for step, value in [(10, 1), (35, 0.5 * (1 + np.cos(np.pi / 4))), (60, 0.5), (110, 0)]:
        assert float(factor(step)) == pytest.approx(value, abs=1e-6)


def test_step_corners():
    factor = schedules.schedule("step", 100, 0)
    for step, value in [(0, 1), (49, 1), (51, 0.1), (74, 0.1), (76, 0.01), (100, 0.01)]:
        assert float(factor(step)) == pytest.approx(value)
