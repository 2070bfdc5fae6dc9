import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.export import quantize
from jaxdl.export.quantize import SCALE, pack, unpack


def reference(array, channel_last):
    """Quantized values and scales, one channel after the other, in float64."""
    rows = np.asarray(array, np.float64)
    rows = np.moveaxis(rows, -1, 0) if channel_last else rows
    values, scales = np.zeros(rows.shape), np.zeros(len(rows))
    for n, row in enumerate(rows):
        scales[n] = max(abs(float(v)) for v in row.ravel()) / 127 or 1.0
        values[n] = np.reshape([round(v / scales[n]) for v in row.ravel()], row.shape)
    return (np.moveaxis(values, 0, -1) if channel_last else values), scales


@pytest.mark.parametrize(("shape", "axis"), [((5, 4), -1), ((3, 3, 2, 4), -1), ((6, 5), 0)])
def test_each_channel_has_its_own_scale(shape, axis):
    array = np.random.RandomState(0).normal(size=shape).astype(np.float32)
    array[(slice(None),) * (len(shape) - 1) + (1,) if axis else (1,)] *= 100
    values, scale = quantize.quantize(array, axis)
    wanted, scales = reference(array, axis == -1)
    assert values.dtype == np.int8
    np.testing.assert_allclose(scale.ravel(), scales, rtol=1e-6)
    # Halves may be rounded otherwise in float32.
    assert np.mean(values != wanted) < 0.02
    assert np.abs(values - wanted).max() <= 1
    assert np.all(np.abs(values * scale - array) <= scale * 0.5001)
    assert np.abs(values).max() == 127


def test_zeros_stay_zeros():
    values, scale = quantize.quantize(np.zeros((3, 2), np.float32), -1)
    assert not values.any()
    assert (scale == 1).all()


@pytest.fixture
def arrays():
    random = np.random.RandomState(0)
    shapes = {
        "params/dense/kernel": (4, 3),
        "params/embed/embedding": (5, 2),
        "params/positions": (4, 2),
        "params/dense/bias": (3,),
        "batch_stats/mean": (3,),
        "constants/whitening": (2, 2),
    }
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_only_kernels_and_embeddings_become_int8(arrays):
    stored = pack(arrays, "float32", "int8")
    kinds = {name for name, array in stored.items() if array.dtype == np.int8}
    assert kinds == {"params/dense/kernel", "params/embed/embedding"}
    assert stored["params/dense/kernel" + SCALE].shape == (1, 3)
    assert stored["params/embed/embedding" + SCALE].shape == (5, 1)
    back = unpack(stored)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == np.float32
        scale = stored.get(name + SCALE, np.zeros(()))
        assert (np.abs(np.asarray(back[name]) - array) <= scale * 0.5001).all()


def test_half_precision_is_that_of_matrices_of_parameters(arrays):
    stored = pack(arrays, "bfloat16")
    kinds = {name for name, array in stored.items() if array.dtype == jnp.bfloat16}
    assert kinds == {"params/dense/kernel", "params/embed/embedding", "params/positions"}
    for name, array in unpack(stored).items():
        wanted = arrays[name].astype(jnp.bfloat16) if name in kinds else arrays[name]
        np.testing.assert_array_equal(array, np.asarray(wanted, np.float32))


def test_without_either_nothing_changes(arrays):
    stored = pack(arrays, "float32")
    assert stored.keys() == arrays.keys()
    assert all(stored[name] is arrays[name] for name in arrays)
