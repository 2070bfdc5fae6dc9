import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris

from jaxdl.data import tables
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
