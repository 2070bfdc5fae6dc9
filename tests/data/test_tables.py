import numpy as np
import pytest
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
)
from sklearn.model_selection import train_test_split

from jaxdl.data import embedded, image_sources, tables
from jaxdl.errors import UserError

SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize(
    ("load", "bunch", "sizes"),
    [(tables.iris, load_iris(), (96, 24, 30)),
     (tables.diabetes, load_diabetes(scaled=False), (283, 71, 88))],
)  # fmt: skip
def test_the_splits_are_a_partition_that_the_seed_chooses(load, bunch, sizes):
    data = load(3)
    splits = [getattr(data, name) for name in SPLITS]
    assert tuple(len(split["y"]) for split in splits) == sizes
    rows = np.concatenate([np.column_stack([split["x"], split["y"]]) for split in splits])
    wanted = np.column_stack([bunch.data.astype(np.float32), bunch.target])
    np.testing.assert_array_equal(sorted(map(tuple, rows)), sorted(map(tuple, wanted)))
    again, other = load(3), load(4)
    np.testing.assert_array_equal(again.test["x"], data.test["x"])
    assert not np.array_equal(other.test["x"], data.test["x"])
    assert other.spec.fingerprint == data.spec.fingerprint


def test_every_species_keeps_its_share():
    data = tables.iris(0)
    for name in SPLITS:
        counts = np.bincount(getattr(data, name)["y"])
        assert counts.max() - counts.min() <= 1


def test_a_number_has_the_mean_of_its_split():
    data = tables.diabetes(0)
    for name in SPLITS:
        split = getattr(data, name)
        np.testing.assert_allclose(split["centre"], split["y"].mean(), rtol=1e-6)


def test_statistics_are_of_the_training_split():
    data = tables.diabetes(0)
    mean, std = data.spec.statistics()
    np.testing.assert_allclose(mean, data.train["x"].mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, data.train["x"].std(0), rtol=1e-4)


@pytest.mark.parametrize("fractions", [(0.0, 0.2), (0.2, 0.0), (0.5, 0.5), (0.9, 0.9)])
def test_no_split_may_be_empty(fractions):
    with pytest.raises(UserError, match="--validation_fraction"):
        tables.iris(0, validation_fraction=fractions[0], test_fraction=fractions[1])


@pytest.mark.parametrize(
    ("load", "bunch"),
    [
        (tables.iris, load_iris()),
        (tables.diabetes, load_diabetes(scaled=False)),
        (tables.breast_cancer, load_breast_cancer()),
        (tables.wine, load_wine()),
    ],
)
def test_tables_and_splits_are_those_of_scikit_learn(load, bunch):
    classes = tuple(map(str, getattr(bunch, "target_names", ())))
    for seed in range(20):
        data = load(seed)
        assert data.spec.columns == tuple(map(str, bunch.feature_names))
        assert data.spec.classes == classes
        rows = np.arange(len(bunch.target))
        for name in ("validation", "test"):
            split = getattr(data, name)
            labels = bunch.target[rows] if classes else None
            rows, part = train_test_split(
                rows, test_size=len(split["y"]), random_state=seed, stratify=labels
            )
            part = np.sort(part)
            np.testing.assert_array_equal(split["x"], bunch.data[part].astype(np.float32))
            np.testing.assert_array_equal(split["y"], bunch.target[part].astype(np.float32))
        np.testing.assert_array_equal(data.train["y"], bunch.target[np.sort(rows)])


def test_stratified_splits_of_any_sizes_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    for seed in range(200):
        labels = np.repeat(np.arange(4), random.integers(3, 40, 4))
        held_out = int(random.integers(4, len(labels) - 4))
        wanted = train_test_split(
            np.arange(len(labels)), test_size=held_out, random_state=seed, stratify=labels
        )
        parts = embedded.split(len(labels), held_out, seed, labels)
        for part, rows in zip(parts, wanted, strict=True):
            np.testing.assert_array_equal(part, rows)


def test_digits_are_those_of_scikit_learn():
    bunch = load_digits()
    raw = image_sources.digits()
    order = np.random.RandomState(0).permutation(len(bunch.target))
    labels = np.concatenate([raw.test["label"], raw.train["label"]])
    images = np.concatenate([raw.test["image"], raw.train["image"]])
    np.testing.assert_array_equal(labels, bunch.target[order])
    np.testing.assert_array_equal(
        images[..., 0], np.round(bunch.images * 255 / 16).astype(np.uint8)[order]
    )
