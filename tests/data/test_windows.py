"""Windows of one array are NumPy's sliding windows, on the host, on a device and under jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.config import RunConfig
from jaxdl.data import batches
from jaxdl.data.batches import Windows, windows
from jaxdl.distributed import sharding
from jaxdl.train.feed import Host

KINDS = (np.uint8, np.int32, np.float32)


def made(size, length, inner=(), kind=np.uint8, seed=0):
    """Windows in a random order, some of them twice, and what NumPy makes of all: [M, T, ...]."""
    random = np.random.RandomState(seed)
    array = random.randint(0, 250, (size, *inner)).astype(kind)
    start = random.randint(0, size - length + 1, size)
    every = np.moveaxis(np.lib.stride_tricks.sliding_window_view(array, length, axis=0), -1, 1)
    return windows(array, start, length), every[start]


@settings(max_examples=50)
@given(
    size=st.integers(1, 30),
    length=st.integers(1, 30),
    inner=st.sampled_from([(), (2,), (3, 1)]),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 99),
)
def test_they_are_the_sliding_windows_of_numpy(size, length, inner, kind, seed):
    length = min(length, size)
    found, wanted = made(size, length, inner, kind, seed)
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype == kind
    assert len(found) == len(wanted) == size
    assert found.nbytes == found.array.nbytes + found.start.nbytes  # not of all windows
    assert found.start.dtype == np.int32
    random = np.random.RandomState(seed)
    for rows in (slice(None), slice(1, None, 2), 0, -1, random.randint(0, size, 7), []):
        rows = np.asarray(rows, np.int32) if isinstance(rows, list) else rows
        assert isinstance(found[rows], np.ndarray)
        assert found[rows].dtype == kind
        np.testing.assert_array_equal(found[rows], wanted[rows])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inner", [(), (2,)])
def test_under_jit_they_are_the_same(kind, inner):
    found, wanted = made(40, 6, inner, kind)
    take = jax.jit(lambda column, rows: column[rows])
    for column in (found, jax.tree.map(jnp.asarray, found), jax.device_put(found)):
        for rows in (jnp.int32(3), jnp.arange(7) * 5, jnp.arange(6).reshape(2, 3)):
            out = take(column, rows)
            assert out.dtype == kind
            np.testing.assert_array_equal(out, wanted[np.asarray(rows)])
    whole = jax.jit(lambda column: column[:])(found)
    np.testing.assert_array_equal(whole, wanted)


def test_as_a_pytree_they_are_two_arrays():
    found, wanted = made(20, 4)
    leaves, treedef = jax.tree.flatten(found)
    assert [leaf.shape for leaf in leaves] == [(20,), (20,)]
    again = jax.tree.unflatten(treedef, leaves)
    assert isinstance(again, Windows)
    np.testing.assert_array_equal(again[:], wanted)
    shapes = jax.eval_shape(lambda column: column[jnp.arange(3)], found)
    assert (shapes.shape, shapes.dtype) == ((3, 4), np.uint8)
    placed = jax.device_put({"tokens": found})["tokens"]
    assert isinstance(placed, Windows)
    assert (placed.shape, placed.dtype, len(placed)) == (found.shape, found.dtype, len(found))
    assert placed.nbytes == found.nbytes


def test_they_are_a_column_of_a_split():
    found, wanted = made(23, 5)
    split, plain = ({"tokens": column, "first": np.arange(23)} for column in (found, wanted))
    assert batches.size(split) == 23
    rows = np.array([4, 0, 22])
    for read in (batches.read, batches.select):
        one, other = read(split, rows), read(plain, rows)
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    for one, other in zip(
        batches.padded_batches(split, 10), batches.padded_batches(plain, 10), strict=True
    ):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_a_device_and_the_host_make_the_same_batches():
    found, wanted = made(23, 5)
    split, plain = {"tokens": found}, {"tokens": wanted}
    shards = sharding.sharded(sharding.mesh(RunConfig(batch_size=4)))
    key = jax.random.key(3)

    def order(epoch):
        return batches.epoch_order(key, epoch, 23, 4)

    host = Host(split, order, 4, shards)
    take = jax.jit(lambda split, order, n: batches.take(split, order, n, 4, shards))
    try:
        for step in (0, 1, 7, 3):  # an epoch has 5
            epoch, position = divmod(step, 5)
            one, other = host.batch(step), take(split, order(epoch), position)
            third = take(plain, order(epoch), position)
            for name in third:
                assert one[name].dtype == other[name].dtype == third[name].dtype
                np.testing.assert_array_equal(one[name], third[name])
                np.testing.assert_array_equal(other[name], third[name])
    finally:
        host.close()
