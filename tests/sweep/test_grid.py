import math
import random
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxdl.errors import UserError
from jaxdl.flags import parse_flags
from jaxdl.sweep import grid
from tests.quick import Config


def trials(*flags, fixed=(), draws=0):
    return grid.trials(Config, list(flags), list(fixed), draws)


def test_lists_and_ranges_are_crossed():
    found = trials(
        "--learning_rate=0.1,0.03", "--sleep=0", "--seed=0..2", fixed=["--how=killed once"]
    )
    assert [trial.name for trial in found] == [
        f"learning_rate={rate},seed={seed}" for rate in ("0.1", "0.03") for seed in range(3)
    ]
    assert found[1].flags == ["--sleep=0", "--how=killed once", "--learning_rate=0.1", "--seed=1"]


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
    st.lists(st.floats(1e-9, 1e6), min_size=1, max_size=4, unique=True),
)
def test_each_combination_is_there_once_and_the_experiment_takes_it(seeds, rates):
    flags = [f"--seed={','.join(map(str, seeds))}", f"--learning_rate={','.join(map(str, rates))}"]
    found = [parse_flags(Config, trial.flags) for trial in trials(*flags)]
    wanted = [(seed, rate) for seed in seeds for rate in rates]
    assert [(config.seed, config.learning_rate) for config in found] == wanted


def test_what_stands_alone_is_one_trial():
    (one,) = trials("--learning_rate=0.1")
    assert one == ("alone", ["--learning_rate=0.1"])


def test_places_and_what_is_fixed_are_no_lists():
    (one,) = trials("--mesh=data:4,model:2", "--data_dir=../a,b", fixed=["--dataset=a,b"])
    assert one.flags == ["--mesh=data:4,model:2", "--data_dir=../a,b", "--dataset=a,b"]


def test_draws_are_in_their_range_the_same_each_time_and_crossed_with_seeds():
    flags = ["--learning_rate=1e-4..1e-1:log", "--batch_size=16..256:log", "--seed=0..2"]
    found = trials(*flags, draws=20)
    assert len(found) == 60
    assert found == trials(*flags, draws=20)
    assert found[:15] == trials(*flags, draws=5)
    for trial in found:
        config = parse_flags(Config, trial.flags)
        assert 1e-4 <= config.learning_rate <= 1e-1
        assert 16 <= config.batch_size <= 256
    seeds = [parse_flags(Config, trial.flags).seed for trial in found]
    assert seeds == [0, 1, 2] * 20
    assert {trial.name for trial in trials(*flags[::-1], draws=20)} != {t.name for t in found}
    assert {frozenset(trial.flags) for trial in trials(*flags[::-1], draws=20)} == {
        frozenset(trial.flags) for trial in found
    }


def test_logarithms_are_even():
    chance = random.Random(0)
    drawn = [float(grid.Range(1e-4, 1e-1, True, False).draw(chance)) for _ in range(3000)]
    below = [sum(number < edge for number in drawn) / 3000 for edge in (1e-3, 1e-2)]
    assert below == pytest.approx([1 / 3, 2 / 3], abs=0.03)
    even = [float(grid.Range(-1, 3, False, False).draw(chance)) for _ in range(3000)]
    assert sum(even) / 3000 == pytest.approx(1, abs=0.1)


FINITE = st.floats(-1e300, 1e300, allow_subnormal=False)


@given(st.tuples(FINITE, FINITE), st.booleans(), st.integers(0, 10**6))
def test_draws_stay_within_their_range(ends, log, seed):
    low, high = sorted(map(abs, ends) if log else ends)
    assume(low < high and (low > 0 or not log))
    text = grid.Range(low, high, log, False).draw(random.Random(seed))
    assert low <= float(text) <= high
    assert len(re.sub(r"e.*|\D", "", text).lstrip("0")) <= 17


@given(st.floats(1e-9, 1e9), st.integers(1, 100), st.booleans(), st.integers(0, 10**6))
def test_draws_stay_within_a_range_of_neighbours(low, steps, log, seed):
    high = low
    for _ in range(steps):
        high = math.nextafter(high, math.inf)
    text = grid.Range(low, high, log, False).draw(random.Random(seed))
    assert low <= float(text) <= high


@given(st.integers(1, 1000), st.integers(1, 1000), st.booleans(), st.integers(0, 10**6))
def test_whole_draws_stay_within_their_range(low, width, log, seed):
    assert (
        low <= int(grid.Range(low, low + width, log, True).draw(random.Random(seed))) <= low + width
    )


@pytest.mark.parametrize(
    ("text", "digits"),
    [("0.9999..0.99999", 8), ("0.00123456..0.00123457", 10), ("1e-4..1e-1:log", 4), ("-1..3", 4)],
)
def test_draws_of_a_narrow_range_differ_and_those_of_a_wide_one_are_short(text, digits):
    found = trials(f"--learning_rate={text}", draws=50)
    drawn = [trial.flags[0].removeprefix("--learning_rate=") for trial in found]
    low, high = map(float, text.removesuffix(":log").split(".."))
    assert all(low <= float(value) <= high for value in drawn)
    assert max(len(re.sub(r"e.*|\D", "", value).lstrip("0")) for value in drawn) <= digits


def test_draws_of_lists_are_distinct():
    flags = ["--learning_rate=0.1,0.2,0.3", "--batch_size=1,2,3"]
    assert len({trial.name for trial in trials(*flags, draws=9)}) == 9
    with pytest.raises(UserError, match="there are only 9 combinations"):
        trials(*flags, draws=10)


@pytest.mark.parametrize(
    ("flags", "draws", "said"),
    [
        (["--learning_rate=0.1..0.2"], 0, "give --random=N"),
        (["--learning_rate=0.2..0.1"], 3, "the smaller one first"),
        (["--learning_rate=0..1:log"], 3, "above 0"),
        (["--learning_rate=0.1..0.2,0.5"], 3, "from alone"),
        (["--seed=0.5..3"], 0, "whole numbers"),
        (["--batch_size=16.2..16.8:log"], 3, "whole numbers"),
        (["--seed=0..100000"], 0, "more than 10000"),
        (["--seed=0..999", "--batch_size=1..99"], 0, "99000 trials"),
        (
            ["--seed=0..99", "--learning_rate=0.1..0.2"],
            2000,
            "200000 trials, more than 10000: draw",
        ),
        (["--seed=1,1"], 0, "twice"),
        (["--seed=0..3,2"], 0, "twice"),
        (["--seed=1,2", "--seed=3"], 0, "given twice"),
        (["--learning_rate=0.1..0.2:lin"], 3, "--learning_rate=0.1..0.2:lin is not a range"),
        (["--learning_rate=1..2..3"], 3, "is not a range: write LOW..HIGH"),
        (["--seed=0..3"], 5, "nothing to draw|no flag has values"),
    ],
)
def test_what_makes_no_sense(flags, draws, said):
    with pytest.raises(UserError, match=said):
        trials(*flags, draws=draws)


@given(st.lists(st.text(min_size=1, max_size=200), min_size=2, max_size=3, unique=True))
def test_names_are_folders_and_differ(values):
    names = [grid.trial_of({"dataset": value}, []).name for value in values]
    assert len(set(names)) == len(names)
    for name in names:
        assert "/" not in name
        assert len(name.encode()) < 200
        assert name not in (".", "..")
