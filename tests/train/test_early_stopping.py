"""The tracker of the best evaluation against a plain loop, for one run and for many at once."""

import json
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl.train.early_stopping import BestTracker

NUMBERS = st.one_of(st.integers(-3, 3).map(float), st.sampled_from([math.nan, math.inf, -math.inf]))


def loop(values, choose, margin):
    """The best step, its value, the step of the last improvement that counts, and its value."""
    step, best, since, than = 0, None, 0, None
    for number, value in enumerate(values, 1):
        if (
            than is None
            or math.isnan(than)
            or (choose(value, than) == value and abs(value - than) > margin)
        ):
            since, than = number, value
        if best is None or math.isnan(best) or (choose(value, best) == value and value != best):
            step, best = number, value
    return step, best, since, than


@settings(max_examples=200)
@given(
    values=st.lists(NUMBERS, max_size=8),
    choose=st.sampled_from([max, min]),
    margin=st.sampled_from([0.0, 1.0, 2.5]),
)
def test_it_is_a_plain_loop(values, choose, margin):
    tracker = BestTracker()
    for number, value in enumerate(values, 1):
        tracker = tracker.update(number, value, 1.0 if choose is max else -1.0, margin)
    wanted = [math.nan if x is None else x for x in loop(values, choose, margin)]
    assert list(tracker) == pytest.approx(wanted, nan_ok=True)
    assert BestTracker.from_record(json.loads(json.dumps(tracker.to_record()))) == pytest.approx(
        tuple(tracker), nan_ok=True
    )


@settings(max_examples=50)
@given(values=st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=6))
def test_many_runs_at_once_are_each_alone(values):
    together, alone = BestTracker(*np.array([0, math.nan, 0, math.nan])[:, None].repeat(3, 1)), []
    for member in range(3):
        tracker = BestTracker()
        for number, row in enumerate(values, 1):
            tracker = tracker.update(number, row[member], 1.0, 0.5)
        alone.append(tracker)
    for number, row in enumerate(values, 1):
        together = together.update(number, np.array(row), 1.0, 0.5)
    for member, tracker in enumerate(alone):
        found = [float(field[member]) for field in together]
        assert found == pytest.approx([float(x) for x in tracker], nan_ok=True)
