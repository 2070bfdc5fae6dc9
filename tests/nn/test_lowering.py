"""Primitives of layers, where JAX tracks along which devices arrays differ."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxdl.errors import UserError
from jaxdl.nn import custom_jvp
from jaxdl.nn.convolution import convolve
from jaxdl.nn.dense import dot_general
from jaxdl.nn.recurrent import Recurrent

RNN = Recurrent("lstm", 3)
ROWS, LENGTHS = np.ones((2, 4, 5), np.float32), np.array([4, 2])


@jax.custom_jvp
def scaled(x, w):
    return x * w


scaled.defjvp(
    custom_jvp.jvp(
        lambda x, w: (x * w, (x, w)),
        lambda saved, y: (y * saved[1], jnp.sum(y * saved[0], axis=0, keepdims=True)),
    )
)

LAYERS = {
    "convolution": (
        partial(convolve, strides=(1, 1), padding=((1, 1), (1, 1))),
        np.ones((2, 4, 4, 3), np.float32),
        np.ones((3, 3, 3, 5), np.float32),
    ),
    "product": (
        partial(dot_general, dimensions=(((1,), (0,)), ((), ()))),
        np.ones((2, 3), jnp.bfloat16),
        np.ones((3, 5), jnp.bfloat16),
    ),
    "recurrent": (
        lambda x, w: RNN.apply(w, x, LENGTHS, train=False)[0],
        ROWS,
        jax.eval_shape(lambda: RNN.init(jax.random.key(0), ROWS, LENGTHS, train=False)),
    ),
    "hand-written gradient": (
        lambda x, w: jax.jvp(scaled, (x, w), (x, w))[1],
        np.ones((2, 3), np.float32),
        np.ones((1, 3), np.float32),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_shard_map_that_checks_axes_is_refused(name):
    """JAX would leave out the sum over devices of a gradient by a replicated operand."""
    layer, x, w = LAYERS[name]
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    split = PartitionSpec("data")

    def traced(check):
        mapped = jax.shard_map(
            layer, mesh=mesh, in_specs=(split, PartitionSpec()), out_specs=split, check_vma=check
        )
        return jax.eval_shape(mapped, x, w)

    with pytest.raises(UserError, match="over data that checks axes: give it check_vma=False"):
        traced(True)
    assert jax.tree.leaves(traced(False))[0].shape[0] == 2
