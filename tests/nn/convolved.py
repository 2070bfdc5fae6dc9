"""Convolutions that tests of oneDNN share."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.nn import convolution, onednn
from jaxdl.nn.conv_window import Window

SAME = ((1, 1), (1, 1))
# (N, B, I, O), window. In the first four an image counts for a part of its own, or there are
# parts of different sizes. Those of channels are cut by them, as their kernel is the largest array.
CASES = {
    "parts": ((1, 7, 16, 32), Window((1, 1), SAME, (16, 16), (3, 3))),
    "strides": ((1, 5, 32, 64), Window((2, 2), SAME, (32, 32), (3, 3))),
    "members": ((3, 7, 16, 16), Window((1, 1), SAME, (16, 16), (3, 3))),
    "rectangles": ((2, 6, 16, 48), Window((2, 1), ((2, 1), (0, 3)), (19, 24), (5, 4))),
    "small": ((4, 3, 2, 5), Window((1, 2), ((0, 1), (1, 0)), (4, 5), (3, 2))),
    "colours": ((1, 4, 3, 16), Window((1, 1), SAME, (12, 12), (3, 3))),
    "pixels": ((2, 4, 32, 16), Window((2, 2), ((0, 0), (0, 0)), (8, 8), (1, 1))),
    "channels": ((2, 3, 130, 192), Window((1, 1), SAME, (2, 2), (3, 3))),
    "channels with strides": ((1, 2, 128, 150), Window((2, 2), SAME, (5, 4), (3, 3))),
    "cropped rows": ((1, 4, 16, 16), Window((3, 2), ((0, 0), (0, 0)), (9, 8), (2, 2))),
}


def normal(seed, *shape, dtype="float32"):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), dtype)


def operands(case, dtype):
    """Images, kernel and result of a case, all random."""
    (N, B, I, O), window = CASES[case]  # noqa: E741
    shapes = (N, B, *window.image, I), (N, *window.kernel, I, O), (N, B, *window.out(), O)
    return [normal(n, *shape, dtype=dtype) for n, shape in enumerate(shapes)], window


def by_onednn(engine, x, w, y, window):
    def maps(x, w, y):
        call = partial(onednn.convolve, engine, window=window)
        return (
            call("forward", x, w, shape=y.shape),
            call("to_images", y, w, shape=x.shape),
            call("to_kernel", x, y, shape=w.shape),
        )

    return jax.jit(maps)(x, w, y)


def layer(x, w):
    return jnp.sum(jnp.sin(convolution.convolve(x, w, (1, 1), SAME).astype(jnp.float32)))
