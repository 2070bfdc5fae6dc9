"""Convolution layers for networks of rectifiers, never slow on any platform.

Shapes: B images of H by W with I channels in, O channels out.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.nn import blocks, convolution
from jaxdl.nn.activations import Activation
from jaxdl.nn.dense import promote
from jaxdl.nn.pooling import OVER_WINDOWS, Pool


class Conv(nn.Conv):
    """`nn.Conv` in interface, parameters, initialisation and result, to rounding: only faster.

    On a CPU the gradient by a kernel of 64 channels at 32x32 takes a third of the time in float32
    and a fifth in bfloat16; `jaxdl.nn.convolution` says where else. Checkpoints of one are
    those of the other.
    """

    promote_dtype: Callable[..., Any] = promote
    conv_general_dilated: Callable[..., Any] = convolution.general

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves x [..., H, W, I]."""
        dtype = self.dtype or jnp.promote_types(x.dtype, self.param_dtype)
        return super().__call__(x).astype(dtype)


def square(
    features: int, size: int = 3, stride: int = 1, *, padding: int | None = None, **options: Any
) -> Conv:
    """A square kernel before a rectifier, initialised as He et al. (2015) derive for that.

    `padding` is of zeros on each side; None: (size - 1) // 2, which at stride 1 and for an odd size
    keeps the size of the images. `options` are `nn.Conv`'s others.
    """
    return Conv(
        features,
        (size, size),
        stride,
        (size - 1) // 2 if padding is None else padding,
        kernel_init=nn.initializers.he_normal(),
        **options,
    )


class ConvTranspose(nn.Module):
    """`nn.ConvTranspose` of a 4x4 kernel at stride 2, with its parameters and result, to rounding.

    Of each 2x2 pixels that it makes, every one is a 2x2 convolution of the small image: so it is
    one convolution with four times the channels, without the zeros between pixels.

    Attributes:
      features: O.
      kernel_init: of the kernel [4, 4, I, O].
      dtype: of the computation; parameters are float32.
    """

    features: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, I] -> [B, 2 * H, 2 * W, O], of `dtype`."""
        B, H, W, I = x.shape  # noqa: E741
        kernel = self.param("kernel", self.kernel_init, (4, 4, I, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        taps = kernel.reshape(2, 2, 2, 2, I, self.features).transpose(0, 2, 4, 1, 3, 5)
        taps = taps.reshape(2, 2, I, -1).astype(self.dtype)
        y = convolution.convolve(x.astype(self.dtype), taps, (1, 1), ((1, 1), (1, 1)))
        y = y.reshape(B, H + 1, W + 1, 2, 2, self.features)
        rows = [[y[:, a : a + H, b : b + W, a, b] for b in range(2)] for a in range(2)]
        pixels = jnp.stack([jnp.stack(row, axis=3) for row in rows], axis=2)
        y = pixels.reshape(B, 2 * H, 2 * W, self.features)
        return (y + bias[None, None, None]).astype(self.dtype)


class ConvPool(nn.Module):
    """The pooled activations of `square`, with its parameters: quick for few channels, too.

    Attributes:
      features: O.
      size: of the kernel, pixels a side.
      padding: of zeros on each side.
      activation: after the convolution, elementwise.
      pool: after the activation.
      dtype: of the computation; parameters are float32.
    """

    features: int
    size: int
    padding: int
    activation: Activation
    pool: Pool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, I] -> [B, (H + 2 * padding - size + 1) // 2, ..., O], of `dtype`."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:])
        given = x.astype(self.dtype), kernel.astype(self.dtype), bias

        def plain(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
            y = convolution.convolve(x, kernel, (1, 1), ((self.padding, self.padding),) * 2)
            return self.pool(self.activation((y + bias[None, None, None]).astype(y.dtype)))

        windows = OVER_WINDOWS.get(self.pool)
        H, W = (n + 2 * self.padding - self.size + 1 for n in x.shape[1:3])
        if windows is None or x.shape[0] == 0 or min(H // 2, W // 2) < 1:
            return plain(*given)
        in_blocks = functools.partial(
            blocks.convolve_and_pool,
            padding=self.padding,
            activation=self.activation,
            pool=windows,
        )
        return jax.lax.platform_dependent(*given, cpu=in_blocks, default=plain)
