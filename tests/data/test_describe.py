"""Descriptions of one's own arrays: which are taken, and which bytes their fingerprint has."""

import numpy as np
import pytest

from jaxdl.data.describe import describe
from jaxdl.errors import UserError


def splits():
    rng = np.random.default_rng(0)
    return [
        {"x": rng.normal(size=(n, 3)).astype(np.float32), "y": np.arange(n, dtype=np.int32)}
        for n in (8, 4, 4)
    ]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_split_counts_in_the_fingerprint(number):
    before = describe(*splits(), name="mine", version="1").fingerprint
    assert describe(*splits(), name="mine", version="1").fingerprint == before
    changed = splits()
    changed[number]["x"][1, 1] += 1
    assert describe(*changed, name="mine", version="1").fingerprint != before
    fewer = splits()
    fewer[number] = {name: array[:-1] for name, array in fewer[number].items()}
    assert describe(*fewer, name="mine", version="1").fingerprint != before


def test_all_three_splits_are_asked_for():
    with pytest.raises(UserError, match="give all three splits"):
        describe(splits()[0], name="mine", version="1")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("x", np.zeros((8, 2)), r"'x' is float64.*x\.astype\(numpy\.float32\)"),
        ("y", np.zeros(8, np.int64), r"'y' is int64.*y\.astype\(numpy\.int32\)"),
        ("y", np.array(["cat"] * 8), r"'y' is <U3.*indices of classes"),
        ("x", [1.0] * 8, "'x' is a list: give an array"),
        ("mask", np.zeros(8, np.float32), "called 'mask'.*rename it"),
        ("index", np.zeros(8, np.int32), "called 'index'.*rename it"),
    ],
)
def test_what_no_batch_can_hold_is_refused(name, array, message):
    with pytest.raises(UserError, match=message):
        describe({name: array}, {}, {}, name="mine", version="1")
