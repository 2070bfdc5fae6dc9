"""The rule of the verdicts: how often it is wrong, how often it finds, and its letters."""

import itertools

import numpy as np
import pytest

from jaxdl.analysis import comparison, statistics
from jaxdl.analysis.comparison import Comparison, compare_all, letters, marks


def runs(values, first=0):
    return {first + seed: float(value) for seed, value in enumerate(values)}


def called_different(groups):
    return any(one.is_different for one in compare_all({"": groups}))


@pytest.mark.parametrize(("n", "paired"), [(3, True), (5, True), (5, False), (10, False)])
def test_of_a_thousand_equals_5_percent_are_called_different(n, paired):
    rng = np.random.default_rng(0)
    found = [
        called_different([runs(rng.normal(size=n)), runs(rng.normal(size=n), 0 if paired else 100)])
        for _ in range(1000)
    ]
    assert 0.035 <= np.mean(found) <= 0.065


def test_of_a_thousand_families_of_equals_5_percent_have_a_difference():
    rng = np.random.default_rng(0)
    found = [called_different([runs(rng.normal(size=5)) for _ in range(3)]) for _ in range(1000)]
    assert 0.02 <= np.mean(found) <= 0.065


@pytest.mark.parametrize("paired", [False, True])
def test_one_standard_deviation_is_found_at_the_recommended_number(paired):
    n = comparison.recommended_seeds(paired)
    rng = np.random.default_rng(0)
    found = [
        called_different(
            [runs(rng.normal(size=n)), runs(1 + rng.normal(size=n), 0 if paired else 100)]
        )
        for _ in range(1000)
    ]
    assert 0.77 <= np.mean(found) <= 0.85  # a standard deviation is 0.013
    a = np.random.default_rng(1).normal(size=(2, 100_000, n - 3))
    fewer = statistics.t_test(statistics.difference(a[0], a[1] + 1, paired)) <= 0.05
    assert np.mean(fewer) < 0.8


def test_seeds_are_paired_if_one_group_has_all_of_the_others():
    a, b = {0: 1.0, 1: 2.0, 2: 4.0}, {2: 5.0, 1: 3.0, 0: 2.5, 7: 9.0}
    for first, second in ((a, b), (b, a)):
        x, y, seeds = comparison.samples(first, second)
        assert seeds == (0, 1, 2)
        assert x.tolist() == [first[seed] for seed in seeds]
        assert y.tolist() == [second[seed] for seed in seeds]
    x, y, seeds = comparison.samples(a, {1: 3.0, 2: 5.0, 7: 9.0})
    assert (x.tolist(), y.tolist(), seeds) == ([1.0, 2.0, 4.0], [3.0, 5.0, 9.0], ())


def test_without_a_spread_the_permutation_test_decides():
    few, many = ([runs([500.0] * n), runs([499.0] * n)] for n in (5, 6))
    assert not called_different(few)
    assert called_different(many)
    assert not called_different([many[0], many[0]])


def test_a_group_of_one_run_is_not_compared():
    assert compare_all({"": [runs([1.0]), runs([1.0, 2.0])]}) == []


def test_holms_correction_counts_the_comparisons_of_all_parts():
    a, b = runs([1.0, 2.0, 3.1, 4.2]), runs([1.9, 3.0, 4.3, 5.3])
    (alone,) = compare_all({"": [a, b]})
    both = compare_all({"x": [a, b], "y": [a, a]})
    assert both[0].adjusted == 2 * alone.adjusted
    assert [one.part for one in both] == ["x", "y"]


def compared(count, different):
    return [
        Comparison("", pair, (), (2, 2), None, 0.0, 0.0 if pair in different else 1.0)
        for pair in itertools.combinations(range(count), 2)
    ]


@pytest.mark.parametrize(
    ("count", "different", "expected"),
    [
        (2, [(0, 1)], ["a", "b"]),
        (3, [(0, 2)], ["a", "ab", "b"]),
        (3, [(0, 1), (0, 2)], ["a", "b", "b"]),
        (4, [(0, 2), (0, 3), (1, 3)], ["a", "ab", "bc", "c"]),
        (3, [], ["", "", ""]),
    ],
)
def test_letters_by_hand(count, different, expected):
    assert letters(count, compared(count, different)) == expected


def test_groups_have_a_common_letter_if_and_only_if_they_do_not_differ():
    rng = np.random.default_rng(0)
    for _ in range(200):
        count = int(rng.integers(2, 8))
        pairs = list(itertools.combinations(range(count), 2))
        different = [pair for pair in pairs if rng.random() < 0.5]
        shown = letters(count, compared(count, different))
        for i, j in pairs if different else []:
            assert (not set(shown[i]) & set(shown[j])) == ((i, j) in different)


def test_letters_that_cannot_be_given_are_left_out():
    count = 60  # each group differs from its partner: 2**30 letters
    different = [(n, n + 1) for n in range(0, count, 2)]
    assert letters(count, compared(count, different)) == [""] * count
    assert letters(3, compared(3, [(0, 1)])[:2]) == ["", "", ""]  # a comparison is missing


def test_marks_of_a_table():
    rng = np.random.default_rng(0)
    near, far = (runs(mean + 0.1 * rng.normal(size=6)) for mean in (0.0, 9.0))
    found = marks([far, near, runs(0.1 * rng.normal(size=6))])
    assert found.letters == ["a", "b", "b"]
    assert found.is_best
    assert "without a common letter" in found.note
    assert marks([near, far, far])[:2] == (["a", "b", "b"], True)
    assert marks([far, far, near])[:2] == (["a", "a", "b"], False)
    assert marks([near, near]) == (["", ""], False, "no two rows differ (t tests, Holm, 5 %)")
    assert marks([near]) == ([""], False, "")
    few = marks([near, runs([1.0])])
    assert few[:2] == (["", ""], False)
    assert "--seed=0..17" in few.note
    assert marks([near] * 51).letters == [""] * 51
    note = "one row is complete: there is nothing to compare it with"
    assert marks([near, {}, {}]) == (["", "", ""], False, note)  # as of a search by halving
    assert marks([near, far, {}])[:2] == (["a", "b", ""], False)


def test_texts_of_a_group():
    assert comparison.texts(runs([0.5])) == ("0.5", "-", "-")
    assert comparison.texts(runs([500.0, 500.0])) == ("500", "-", "0")
    mean, interval, deviation = comparison.texts(runs([1.0, 2.0, 4.0]))
    assert (mean, interval, deviation) == ("2.33", "[-1.46, 6.13]", "1.5")
