import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings

from jaxdl.data import batches
from jaxdl.task import Predict, Task
from jaxdl.text import bucketing


def padded(lengths, chosen):
    """Positions of all examples, each padded to the smallest width that holds it."""
    return sum(min(width for width in chosen if width >= n) for n in lengths)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 25), min_size=1, max_size=40), st.integers(1, 4))
def test_widths_are_the_best_of_all_choices(lengths, count):
    found = bucketing.widths(np.array(lengths), count)
    assert found == sorted(set(found))
    assert found[-1] == max(lengths)
    assert len(found) <= count
    *edges, longest = bucketing.candidate_widths(max(lengths))
    choices = [(*some, longest) for n in range(count) for some in itertools.combinations(edges, n)]
    assert padded(lengths, found) == min(padded(lengths, choice) for choice in choices)


@given(st.integers(1, 10**6))
def test_places_are_few_and_reach_the_longest(longest):
    places = bucketing.candidate_widths(longest)
    assert places == sorted(set(places))
    assert places[-1] == longest
    assert len(places) <= bucketing.EDGES
    assert all(n % 2 == 0 for n in places[:-1])


@settings(max_examples=5)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 3))
def test_an_epoch_in_like_lengths_is_a_permutation(examples, batch_size, epoch):
    lengths = jnp.asarray(np.random.RandomState(0).randint(1, 50, examples))
    ordered = jax.jit(batches.bucket_by_length, static_argnums=3)
    order = ordered(jax.random.key(0), epoch, lengths, batch_size)
    np.testing.assert_array_equal(np.sort(order), np.arange(examples))
    other = ordered(jax.random.key(0), epoch + 1, lengths, batch_size)
    assert examples < 20 or not np.array_equal(order, other)


@settings(max_examples=5)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 3))
def test_one_law_of_orders_serves_every_feed(examples, batch_size, epoch):
    key, lengths = jax.random.key(3), np.random.RandomState(0).randint(1, 50, examples)
    plain = batches.epoch_order(key, epoch, examples, batch_size)
    wanted = jax.random.permutation(jax.random.fold_in(key, epoch), examples)
    np.testing.assert_array_equal(plain, wanted)
    alike = batches.epoch_order(key, epoch, examples, batch_size, jnp.asarray(lengths))
    wanted = batches.bucket_by_length(key, epoch, jnp.asarray(lengths), batch_size)
    np.testing.assert_array_equal(alike, wanted)
    if examples <= batches.POOL * batch_size:  # one pool: every batch is a stretch of the sorted
        full = examples // batch_size * batch_size
        spans = np.sort(lengths[np.asarray(alike)[:full]].reshape(-1, batch_size), axis=1)
        spans = spans[np.lexsort((spans[:, -1], spans[:, 0]))]
        np.testing.assert_array_equal(spans.ravel(), np.sort(spans.ravel()))


def test_like_lengths_waste_little():
    lengths = np.random.RandomState(0).lognormal(5, 0.6, 20_000).astype(int).clip(8, 400)
    order = np.asarray(batches.bucket_by_length(jax.random.key(0), 0, jnp.asarray(lengths), 32))
    shuffled = np.random.RandomState(1).permutation(len(lengths))
    chosen = bucketing.widths(lengths, 8)
    assert bucketing.waste(lengths, order, 32, chosen) < 0.15
    assert bucketing.waste(lengths, shuffled, 32, chosen) > 0.4


def test_a_task_sees_each_batch_in_the_smallest_width_that_holds_it():
    def step(state, batch):
        width = jnp.float32(batch["tokens"].shape[1])
        return state + batch["tokens"].sum(), {"width": (width, jnp.float32(1))}

    predict = Predict(lambda batch: batch["tokens"], lambda state, tokens: tokens)
    evaluate = lambda state, batch: step(state, batch)[1]  # noqa: E731
    task = Task(lambda key: jnp.int32(0), step, evaluate, predict)
    task = bucketing.bucket(task, [2, 5, 9], ("tokens",))
    assert task.predict is predict  # of any width
    run = jax.jit(task.step)
    for lengths, width in (((1, 2), 2), ((3, 1), 5), ((5, 5), 5), ((6, 1), 9), ((9, 2), 9)):
        tokens = np.zeros((2, 9), np.int32)
        for row, n in enumerate(lengths):
            tokens[row, :n] = 1
        batch = {"tokens": jnp.asarray(tokens), "length": jnp.asarray(lengths)}
        state, found = run(jnp.int32(0), batch)
        assert state == sum(lengths)
        assert found["width"][0] == width
        assert task.evaluate(state, batch)["width"][0] == width


def test_the_longest_of_any_split_has_its_width():
    splits = [{"length": np.array(lengths)} for lengths in ([3, 9, 9], [20, 4], [5, 31])]
    found = bucketing.fit(splits, 2)
    assert found == tuple(sorted({*bucketing.widths(splits[0]["length"], 2), 31}))
    assert found[-1] == 31
