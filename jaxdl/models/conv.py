"""A convolution with `nn.Conv`'s parameters that stays fast on tiny images.

Shapes: B images of H by W with I channels in, O channels out.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

# Up to so many pixels a convolution is written as one matrix product.
SMALL = 4


class Conv3x3(nn.Module):
    """A 3x3 convolution of stride 1 that keeps the size (SAME): [B, H, W, I] -> [B, H, W, O].

    Parameters (`kernel` [3, 3, I, O] and `bias` [O], float32) and initialisation are those of
    `nn.Conv`, and so is the result, to rounding. On 2x2 images of 512 channels a step of
    XLA's convolution takes a CPU 75 times as long, and multiplies mostly by padding; there the
    kernel is laid out as a matrix [H*W*I, H*W*O] instead.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves x [B, H, W, I] to [B, H, W, features]."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x, kernel, bias = (array.astype(self.dtype) for array in (x, kernel, bias))
        y = as_product(x, kernel) if x.shape[1] * x.shape[2] <= SMALL else convolve(x, kernel)
        return y + bias.reshape(1, 1, 1, -1)


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's convolution: [B, H, W, I], [3, 3, I, O] -> [B, H, W, O]."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def as_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same as a product with the matrix that maps every input pixel to every output pixel."""
    B, H, W, inputs = x.shape
    outputs = kernel.shape[-1]
    # offset[i, o]: where in a 3-wide kernel input i meets output o; 3 (a zero) if they do not.
    offset = [np.subtract.outer(np.arange(n), np.arange(n)) + 1 for n in (H, W)]
    rows, columns = (np.where((o >= 0) & (o <= 2), o, 3) for o in offset)
    padded = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    # [H in, W in, H out, W out, I, O] -> [H in, W in, I, H out, W out, O]
    blocks = padded[rows[:, None, :, None], columns[None, :, None, :]].transpose(0, 1, 4, 2, 3, 5)
    y = x.reshape(B, H * W * inputs) @ blocks.reshape(H * W * inputs, H * W * outputs)
    return y.reshape(B, H, W, outputs)
