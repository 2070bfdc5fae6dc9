"""A square convolution with `nn.Conv`'s parameters that stays fast on tiny images.

Shapes: B images of H by W with I channels in, O channels out.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

# Up to so many pixels a 3x3 convolution is written as one matrix product.
SMALL = 4


class Conv(nn.Module):
    """A k x k convolution: [B, H, W, I] -> [B, H', W', features].

    Parameters (`kernel` [k, k, I, O] and `bias` [O], float32) and initialisation are those of
    `nn.Conv`, and so is the result, to rounding. On 2x2 images of 512 channels a step of
    XLA's 3x3 convolution takes a CPU 75 times as long, and multiplies mostly by padding; there the
    kernel is laid out as a matrix [H*W*I, H*W*O] instead.

    Attributes:
      features: O.
      kernel_size: k.
      stride: pixels between two places of the kernel.
      padding: pixels of zeros on each side; None: (k - 1) // 2, which at stride 1 and for an odd k
        keeps the size.
      use_bias: whether a bias is added.
      dtype: of the computation; parameters are float32.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves x [B, H, W, I]."""
        k = self.kernel_size
        padding = (k - 1) // 2 if self.padding is None else self.padding
        shape = (k, k, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        is_plain = (k, self.stride, padding) == (3, 1, 1)
        if is_plain and x.shape[1] * x.shape[2] <= SMALL:
            y = as_product(x, kernel)
        else:
            y = convolve(x, kernel, self.stride, padding)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 1) -> jax.Array:
    """XLA's convolution: [B, H, W, I], [k, k, I, O] -> [B, H', W', O]."""
    pads = [(padding, padding)] * 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def as_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution that keeps the size, by the matrix from all input to all output pixels."""
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
