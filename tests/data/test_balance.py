"""Epochs that draw all classes equally: one law for every feed."""

import dataclasses
from functools import partial

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from jaxdl.config import RunConfig
from jaxdl.data import batches, images, spec
from jaxdl.data.batches import Balance
from jaxdl.data.pipeline import Pipeline, Steps
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.train import feed, step_spec, train_step

KEY = jax.random.key(3)


def order_of(labels, epoch=0, batch_size=4, lengths=None):
    balance = Balance(labels, np.unique(labels))
    return np.asarray(
        batches.epoch_order(KEY, epoch, len(labels), batch_size, lengths, balance=balance)
    )


@settings(max_examples=10)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 3), st.integers(0, 9))
def test_classes_are_drawn_in_turn_and_so_are_their_examples(n, num_classes, epoch, seed):
    random = np.random.RandomState(seed)
    labels = np.minimum(random.geometric(0.6, n) - 1, num_classes - 1) * 2  # with gaps
    labels = labels.astype(np.int32)
    order, present = order_of(labels, epoch), np.unique(labels)
    for start in range(0, n - len(present) + 1, len(present)):
        round_ = labels[order[start : start + len(present)]]
        np.testing.assert_array_equal(np.sort(round_), present)
    assert len(set(labels[order[n - n % len(present) :]])) == n % len(present)
    shuffled = np.asarray(batches.epoch_order(KEY, epoch, n, 4))
    for label in present:  # the draws of a class go round in the epoch's permutation
        own = shuffled[labels[shuffled] == label]
        drawn = order[labels[order] == label]
        np.testing.assert_array_equal(drawn, [own[t % len(own)] for t in range(len(drawn))])


def test_orders_differ_by_epoch_and_visit_all_examples_in_time():
    labels = np.repeat([0, 1], [36, 4]).astype(np.int32)
    orders = [order_of(labels, epoch) for epoch in range(12)]
    assert not np.array_equal(orders[0], orders[1])
    assert all((labels[order] == 1).sum() == 20 for order in orders)
    assert set(np.concatenate(orders)) == set(range(40))  # each epoch has 20 of the 36
    sequences = {tuple(labels[order]) for order in orders}
    assert len(sequences) == 12  # the classes of a round are in a random order


def test_the_law_is_the_same_compiled():
    labels = np.random.RandomState(0).randint(0, 3, 50).astype(np.int32)

    @jax.jit
    def order(labels, epoch):
        return batches.epoch_order(KEY, epoch, 50, 8, None, Balance(labels, np.arange(3)))

    np.testing.assert_array_equal(order(labels, 7), order_of(labels, 7, 8))


def test_balanced_batches_of_similar_length():
    random = np.random.RandomState(0)
    labels = (random.rand(64) < 0.1).astype(np.int32)
    lengths = random.randint(1, 50, 64).astype(np.int32)
    plain, order = order_of(labels), order_of(labels, lengths=jnp.asarray(lengths))
    np.testing.assert_array_equal(np.sort(order), np.sort(plain))  # the same draws
    spans = np.sort(lengths[order].reshape(16, 4), axis=1)
    spans = spans[np.lexsort((spans[:, -1], spans[:, 0]))]
    np.testing.assert_array_equal(spans.ravel(), np.sort(lengths[plain]))


@pytest.fixture(scope="module")
def parts():
    from experiments import mnist_lenet as experiment

    config = experiment.Config(
        dataset="digits",
        image_size=12,
        batch_size=16,
        sampling="balanced",
        class_weights="balanced",
    )
    return experiment, config, experiment.load(config)


def test_feeds_on_devices_and_on_the_host_agree(parts):
    experiment, config, data = parts
    mesh = sharding.mesh(config)
    about = step_spec.step_spec(experiment.build, config, data, mesh)
    program = train_step.compile_step(about)
    resident = feed.open_feed(program, about, data.train, KEY)
    host = feed.Host(data.train, resident._order, 16, sharding.sharded(mesh))
    balance = Balance(data.train["label"], data.spec.present_classes())
    per_epoch = data.spec.num_train // 16
    try:
        for step in (0, 1, per_epoch - 1, per_epoch, 3 * per_epoch + 2, 1):
            here, there = resident.batch(step), host.batch(step)
            jax.tree.map(np.testing.assert_array_equal, there, here)
            epoch, position = divmod(step, per_epoch)
            order = batches.epoch_order(KEY, epoch, data.spec.num_train, 16, balance=balance)
            np.testing.assert_array_equal(here["index"], order[position * 16 : position * 16 + 16])
            counts = np.bincount(here["label"], minlength=10)
            assert counts.min() >= 1  # 16 draws in a row hold a whole round or most of two
            assert counts.max() <= 3
    finally:
        resident.close()
        host.close()


def test_workers_draw_by_the_same_law(tmp_path):
    random = np.random.RandomState(0)
    for split, counts in (("train", (9, 3)), ("val", (2, 2)), ("test", (2, 2))):
        for name, count in zip(("common", "rare"), counts, strict=True):
            (tmp_path / split / name).mkdir(parents=True)
            for n in range(count):
                pixels = random.randint(0, 256, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{n}.png")
    kept = images.load(str(tmp_path), image_size=8)
    read = images.load(str(tmp_path), image_size=8, stream=True, workers=1)
    np.testing.assert_array_equal(read.train.labels(), kept.train["label"])
    np.testing.assert_array_equal(
        read.train.of(np.array([11, 0])).labels(), kept.train["label"][[11, 0]]
    )
    balance = Balance(read.train.labels(), np.arange(2))
    shards = sharding.sharded(sharding.mesh(RunConfig(batch_size=4)))
    order = partial(batches.epoch_order, KEY, examples=12, batch_size=4, balance=balance)
    host = feed.Host(kept.train, order, 4, shards)
    pipeline = Pipeline(read.train, KEY, 4, shards, balance)
    try:
        for step in (7, 8, 2):
            ours, theirs = host.batch(step), pipeline.batch(step)
            jax.tree.map(np.testing.assert_array_equal, theirs, ours)
            assert np.bincount(ours["label"]).tolist() == [2, 2]
    finally:
        pipeline.close()
        host.close()
    # A repeated example gets another crop in each step, and each host reads its own rows.
    split, known = read.train.seen(1, 0.2), np.asarray(jax.random.key_data(KEY))
    steps = Steps(split, known, 4, np.arange(4), balance)
    part = Steps(split, known, 4, np.array([2, 3]), balance)[2]
    for name, array in steps[2].items():
        np.testing.assert_array_equal(part[name], array[2:])
    seen = {}
    for step in range(3):
        for row, image in zip(steps[step]["index"], steps[step]["image"], strict=True):
            seen.setdefault(int(row), []).append(image.tobytes())
    assert all(len(set(crops)) == len(crops) for crops in seen.values())
    assert max(map(len, seen.values())) > 1


def test_descriptions_have_it_only_if_used(parts):
    experiment, config, data = parts
    plain = dataclasses.replace(config, sampling="uniform", class_weights="none")
    text = experiment.load(plain).spec.to_json()
    assert "class_counts" not in text
    assert "balanced_by" not in text
    used = data.spec.to_json()
    again = spec.DataSpec.from_json(used)
    assert again == data.spec
    assert again.balanced_by == "label"
    np.testing.assert_array_equal(again.class_counts(), np.bincount(data.train["label"]))
    for old, new in (
        ('"balanced_by": "label"', '"balanced_by": "image"'),
        ('"balanced_by": "label"', '"balanced_by": "other"'),
        ('"balanced_by": "label"', '"balanced_by": 3'),
        ('"class_counts"', '"counts"'),
        ('"num_classes": 10', '"num_classes": 9'),
    ):
        assert old in used
        with pytest.raises(UserError, match="not a valid description"):
            spec.DataSpec.from_json(used.replace(old, new))
