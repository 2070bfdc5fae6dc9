"""Airbench: a small convolutional network that trains in seconds, with a whitening first layer.

The architecture of airbench94 (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024,
arXiv 2404.00498), after Page (2018) and tysam-code (2023).

Shapes: B images of H by W with C channels; I channels in, O channels out; P = k * k * C values per
patch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxdl.nn import conv_pool_blocks, pooling
from jaxdl.nn.conv import Conv
from jaxdl.nn.conv_pool_blocks import Axis
from jaxdl.nn.convolution import convolve
from jaxdl.nn.norm import BatchNorm

WIDTHS = (64, 256, 256)  # channels of the three blocks
MIN_SIZE = 9  # smallest side of an image, in pixels: three poolings leave one pixel
EPSILON = 5e-4  # added to the variances that the whitening divides by
HEAD = 1 / 9  # scale of the logits

UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # +- 1 / sqrt(fan_in)


class Airbench(nn.Module):
    """Airbench: [B, H, W, C] -> logits [B, num_classes], float32; H and W at least `MIN_SIZE`.

    A 2x2 convolution with a fixed kernel, a bias and a GELU. Three blocks of 3x3 convolution, 2x2
    max pooling, batch normalisation, GELU, 3x3 convolution, batch normalisation, GELU. Global max
    pooling (over 3x3 pixels for 32x32 images) and a linear layer. Batch normalisation has biases
    but no scales.

    Attributes:
      num_classes: number of classes.
      whitening: kernel of the first convolution [k, k, C, 2 * P], see `whiten`; stored in the
        collection `constants`, which no optimizer sees.
      width_multiplier: factor of the widths of the blocks.
      frozen: whether the first layer has no bias. It then has nothing to learn, which saves the
        computation of its gradient.
      dtype: dtype of the 3x3 convolutions; parameters, statistics and logits are float32.
    """

    num_classes: int
    whitening: np.ndarray
    width_multiplier: float = 1.0
    frozen: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Classifies x [B, H, W, C]; training updates running statistics."""
        fixed = self.variable("constants", "whitening", lambda: jnp.asarray(self.whitening)).value
        bias = jnp.zeros(fixed.shape[-1:])
        if not self.frozen:
            bias = self.param("whitening_bias", lambda _: bias)
        for block, width in enumerate(WIDTHS):
            features = max(1, round(width * self.width_multiplier))
            inputs = x.shape[-1] if block else fixed.shape[-1]
            kernel = self.param(f"kernel_{block}", dirac, (3, 3, inputs, features))
            kernel = kernel.astype(self.dtype)
            # Both forms compute the same function; each is the faster one on its platform.
            if block:
                x = jax.lax.platform_dependent(x, kernel, cpu=pooled_by_blocks, default=conv_pool)
            else:
                operands = (x, fixed, bias, kernel)
                x = jax.lax.platform_dependent(*operands, cpu=stem_by_blocks, default=stem)
            x = self._activate(x, train)
            conv = Conv(features, (3, 3), use_bias=False, kernel_init=dirac, dtype=self.dtype)
            x = self._activate(conv(x), train)
        x = jnp.max(x, axis=(1, 2)).astype(jnp.float32)
        return nn.Dense(self.num_classes, use_bias=False, kernel_init=UNIFORM)(x) * HEAD

    def _activate(self, x: jax.Array, train: bool) -> jax.Array:
        """Batch normalisation and GELU."""
        norm = BatchNorm(momentum=0.6, use_scale=False)
        return nn.gelu(norm(x, train=train)).astype(self.dtype)


def dirac(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Dirac initializer of a kernel [k, l, I, O]: the first min(I, O) outputs copy the inputs.

    Kernels of the other outputs are uniform in +- 1 / sqrt(k * l * I).
    """
    rows, columns, inputs, outputs = shape
    same = min(inputs, outputs)
    kernel = UNIFORM(key, shape, dtype).at[..., :same].set(0)
    return kernel.at[rows // 2, columns // 2, jnp.arange(same), jnp.arange(same)].set(1)


def whiten(images: np.ndarray, size: int = 2, epsilon: float = EPSILON) -> np.ndarray:
    """Kernel that whitens the patches of images (PCA whitening).

    Its columns are the eigenvectors of the patches' covariance about zero, by ascending eigenvalue,
    each divided by sqrt(eigenvalue + epsilon); then the negatives of all of them.

    Args:
      images: [B, H, W, C], normalised as the network receives them.
      size: k, side of a patch, in pixels.
      epsilon: added to the eigenvalues; limits the amplification of directions with little
        variance, which are mostly noise.

    Returns:
      float32 [k, k, C, 2 * P].
    """
    H, W, C = images.shape[1:]
    rows, columns = H - size + 1, W - size + 1
    pixels = [images[:, i : i + rows, j : j + columns] for i in range(size) for j in range(size)]
    patches = np.concatenate(pixels, axis=-1).reshape(-1, size * size * C).astype(np.float64)
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    scaled = vectors / np.sqrt(values + epsilon)
    return np.hstack([scaled, -scaled]).reshape(size, size, C, -1).astype(np.float32)


def stem(x: jax.Array, whitening: jax.Array, bias: jax.Array, kernel: jax.Array) -> jax.Array:
    """Whitening, bias, GELU and the first `conv_pool` convolution.

    Args:
      x: images [B, H, W, C].
      whitening: kernel [k, k, C, 2 * P], see `whiten`.
      bias: [2 * P].
      kernel: [3, 3, 2 * P, O].

    Returns:
      [B, (H - k + 1) // 2, (W - k + 1) // 2, O].
    """
    # In float32, because whitening amplifies small differences of pixels.
    y = convolve(x, whitening, (1, 1), ((0, 0), (0, 0))) + bias[None, None, None]
    return conv_pool(nn.gelu(y).astype(kernel.dtype), kernel)


def conv_pool(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution and 2x2 max pooling: [B, H, W, I] -> [B, H // 2, W // 2, O]."""
    return pooling.max_pool(convolve(x, kernel, (1, 1), ((1, 1), (1, 1))))


# The same two functions for a CPU, where blocks of 2x2 pixels are about twice as fast; see
# `jaxdl.nn.conv_pool_blocks`.


def stem_by_blocks(
    x: jax.Array, whitening: jax.Array, bias: jax.Array, kernel: jax.Array
) -> jax.Array:
    """Computes `stem` by blocks, for a whitening kernel of 2x2."""
    rows, columns = (conv_pool_blocks.axis(n - 1, 3, 1, 2) for n in x.shape[1:3])
    # The whitened image is one pixel smaller than the image. It is padded by padding the image, and
    # the pixels around it are not zero then. The mask below makes them so, as the next convolution
    # needs zeros there.
    pads = [(a.padding[0], a.padding[1]) for a in (rows, columns)]
    y = convolve(x, conv_pool_blocks.shifted_kernels(whitening, 2), (2, 2), (pads[0], pads[1]))
    y = nn.gelu(y + jnp.tile(bias, 4)[None, None, None])
    inside = [
        np.pad(np.ones(n - 1, bool), a.padding).reshape(-1, 2)
        for n, a in zip(x.shape[1:3], (rows, columns), strict=True)
    ]
    mask = inside[0][:, None, :, None] & inside[1][:, None]  # [h, w, 2, 2]
    mask = np.repeat(mask.reshape(1, *y.shape[1:3], 4), len(bias), axis=-1)
    return _convolve_blocks(jnp.where(mask, y, 0).astype(kernel.dtype), kernel, rows, columns)


def pooled_by_blocks(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes `conv_pool` by blocks."""
    rows, columns = (conv_pool_blocks.axis(n, 3, 1, 2) for n in x.shape[1:3])
    return _convolve_blocks(conv_pool_blocks.split(x, rows, columns, 2), kernel, rows, columns)


def _convolve_blocks(x: jax.Array, kernel: jax.Array, rows: Axis, columns: Axis) -> jax.Array:
    """3x3 convolution and max pooling: blocks [B, h + 1, w + 1, 4 * I] -> [B, h, w, O]."""
    y = convolve(
        x, conv_pool_blocks.kernel_over_blocks(kernel, rows, columns, 2), (1, 1), ((0, 0), (0, 0))
    )
    return jnp.max(y.reshape(*y.shape[:3], 4, -1), axis=3)
