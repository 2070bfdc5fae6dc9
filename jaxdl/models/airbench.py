"""A small convolutional network made to train in seconds, with a first layer that whitens.

The architecture of airbench94 (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024,
arXiv 2404.00498), after Page (2018) and tysam-code (2023).

Shapes: B images of H by W with C channels; I channels in, O out; P = k * k * C entries of a patch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxdl.nn import blocks, pooling
from jaxdl.nn.blocks import Axis
from jaxdl.nn.conv import Conv
from jaxdl.nn.convolution import convolve
from jaxdl.nn.norm import BatchNorm

WIDTHS = (64, 256, 256)  # of the three blocks
SMALLEST = 9  # pixels a side: what three halvings leave one of
EPSILON = 5e-4  # added to the variances that the whitening divides by
HEAD = 1 / 9  # times the logits

UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # in 1 / sqrt(fan_in)


class Airbench(nn.Module):
    """[B, H, W, C] -> logits [B, num_classes], float32; H and W are `SMALLEST` at least.

    A 2x2 convolution whose kernel is fixed, and three blocks of 3x3 convolution, 2x2 max pooling,
    normalisation, GELU, 3x3 convolution, normalisation, GELU; the largest of each channel (of 3x3
    pixels, where images have 32), and a linear layer. Normalisation is by batch, without scales.

    Attributes:
      num_classes: K.
      whitening: kernel of the first convolution [k, k, C, 2 * P], see `whiten`; it is kept in the
        collection `constants`, which no optimizer sees.
      width_multiplier: scales the widths of the blocks.
      frozen: the first layer has no bias, and so nothing to learn: a gradient less to compute.
      dtype: of the 3x3 convolutions; parameters, statistics and logits are float32.
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
            kernel = self.param(f"kernel_{block}", identity, (3, 3, inputs, features))
            kernel = kernel.astype(self.dtype)
            # The same function in the form that is fast there.
            if block:
                x = jax.lax.platform_dependent(x, kernel, cpu=pooled_by_blocks, default=pooled)
            else:
                given = (x, fixed, bias, kernel)
                x = jax.lax.platform_dependent(*given, cpu=stem_by_blocks, default=stem)
            x = self._activate(x, train)
            conv = Conv(features, (3, 3), use_bias=False, kernel_init=identity, dtype=self.dtype)
            x = self._activate(conv(x), train)
        x = jnp.max(x, axis=(1, 2)).astype(jnp.float32)
        return nn.Dense(self.num_classes, use_bias=False, kernel_init=UNIFORM)(x) * HEAD

    def _activate(self, x: jax.Array, train: bool) -> jax.Array:
        norm = BatchNorm(momentum=0.6, use_scale=False)
        return nn.gelu(norm(x, train=train)).astype(self.dtype)


def identity(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """A kernel [k, l, I, O] whose first min(I, O) outputs are the inputs as they are.

    The others are uniform within 1 / sqrt(k * l * I).
    """
    rows, columns, inputs, outputs = shape
    same = min(inputs, outputs)
    kernel = UNIFORM(key, shape, dtype).at[..., :same].set(0)
    return kernel.at[rows // 2, columns // 2, jnp.arange(same), jnp.arange(same)].set(1)


def whiten(images: np.ndarray, size: int = 2, epsilon: float = EPSILON) -> np.ndarray:
    """A kernel that makes the patches of images white: float32 [k, k, C, 2 * P].

    The eigenvectors of the patches' covariance about zero, from the smallest on, each over the root
    of its eigenvalue plus epsilon; then the negatives of them all.

    Args:
      images: [B, H, W, C], as the network is given them: normalised.
      size: k, pixels a side of a patch.
      epsilon: keeps what hardly varies from being noise as loud as the rest.
    """
    H, W, C = images.shape[1:]
    rows, columns = H - size + 1, W - size + 1
    places = [images[:, i : i + rows, j : j + columns] for i in range(size) for j in range(size)]
    patches = np.concatenate(places, axis=-1).reshape(-1, size * size * C).astype(np.float64)
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    scaled = vectors / np.sqrt(values + epsilon)
    return np.hstack([scaled, -scaled]).reshape(size, size, C, -1).astype(np.float32)


def stem(x: jax.Array, whitening: jax.Array, bias: jax.Array, kernel: jax.Array) -> jax.Array:
    """`pooled` of a GELU of the whitened patches of x [B, H, W, C] plus a bias [2 * P]."""
    # In float32: what is multiplied here are small differences of pixels.
    y = convolve(x, whitening, (1, 1), ((0, 0), (0, 0))) + bias[None, None, None]
    return pooled(nn.gelu(y).astype(kernel.dtype), kernel)


def pooled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution and 2x2 max pooling: [B, H, W, I] -> [B, H // 2, W // 2, O]."""
    return pooling.maximum(convolve(x, kernel, (1, 1), ((1, 1), (1, 1))))


# The same two for a CPU, where blocks of 2x2 pixels are about twice as fast.


def stem_by_blocks(
    x: jax.Array, whitening: jax.Array, bias: jax.Array, kernel: jax.Array
) -> jax.Array:
    """The same function as `stem`."""
    rows, columns = (blocks.axis(n - 1, 3, 1, 2) for n in x.shape[1:3])
    # What is whitened is one pixel smaller than the image.
    pads = [(a.padding[0], a.padding[1]) for a in (rows, columns)]
    y = convolve(x, blocks.shifted(whitening, 2), (2, 2), (pads[0], pads[1]))
    y = nn.gelu(y + jnp.tile(bias, 4)[None, None, None])
    within = [
        np.pad(np.ones(n - 1, bool), a.padding).reshape(-1, 2)
        for n, a in zip(x.shape[1:3], (rows, columns), strict=True)
    ]
    inside = within[0][:, None, :, None] & within[1][:, None]  # [h, w, 2, 2]
    inside = np.repeat(inside.reshape(1, *y.shape[1:3], 4), len(bias), axis=-1)
    return _largest(jnp.where(inside, y, 0).astype(kernel.dtype), kernel, rows, columns)


def pooled_by_blocks(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same function as `pooled`."""
    rows, columns = (blocks.axis(n, 3, 1, 2) for n in x.shape[1:3])
    return _largest(blocks.split(x, rows, columns, 2), kernel, rows, columns)


def _largest(x: jax.Array, kernel: jax.Array, rows: Axis, columns: Axis) -> jax.Array:
    """Blocks [B, h + 1, w + 1, 4 * I] by [3, 3, I, O]; of each the largest: [B, h, w, O]."""
    y = convolve(x, blocks.of_blocks(kernel, rows, columns, 2), (1, 1), ((0, 0), (0, 0)))
    return jnp.max(y.reshape(*y.shape[:3], 4, -1), axis=3)
