"""Generator and discriminator of deep convolutional GANs (Radford et al., 2016).

Each has one hidden dense layer, as InfoGAN's for MNIST have (Chen et al., 2016, appendix C.1): two
convolutions see a stroke, and it takes a layer that sees all of them to tell whether they agree.

Shapes: B images of S by S pixels, a multiple of four, with C channels; L latent numbers.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.nn.conv import Conv, ConvTranspose
from jaxdl.nn.norm import NORMS, Norm

START = nn.initializers.normal(0.02)  # the paper's


class Generator(nn.Module):
    """Latents [B, L] -> images in -1 to 1, float32 [B, S, S, C].

    Attributes:
      size: S.
      channels: C.
      width: channels of the last hidden layer; the one before it has twice as many.
      hidden: units of the first layer.
      norm: before each rectifier.
      dtype: of the computation; parameters and images are float32.
    """

    size: int
    channels: int
    width: int = 32
    hidden: int = 512
    norm: Norm = NORMS["batch"]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool) -> jax.Array:
        """Draws the images of z [B, L]; training updates running statistics."""
        side, wide = self.size // 4, 2 * self.width
        x = nn.Dense(self.hidden, kernel_init=START, dtype=self.dtype)(z)
        x = nn.relu(self.norm(x, train, self.dtype))
        x = nn.Dense(side * side * wide, kernel_init=START, dtype=self.dtype)(x)
        x = x.reshape(-1, side, side, wide)
        for features in (self.width, self.channels):
            x = nn.relu(self.norm(x, train, self.dtype))
            x = ConvTranspose(features, kernel_init=START, dtype=self.dtype)(x)
        return jnp.tanh(x.astype(jnp.float32))


class Discriminator(nn.Module):
    """Images [B, S, S, C] -> how real each is, float32 [B], a logit or a number without bounds.

    Attributes:
      width: channels of the first layer; the second has twice as many.
      hidden: units of the third.
      norm: after the second layer and the third; not after the first, as the paper has it.
      dtype: of the computation; parameters and outputs are float32.
    """

    width: int = 32
    hidden: int = 512
    norm: Norm = NORMS["none"]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Judges x [B, S, S, C]; training updates running statistics, if the norm has such."""
        for n, features in enumerate((self.width, 2 * self.width)):
            conv = Conv(features, (4, 4), 2, 1, kernel_init=START, dtype=self.dtype)
            x = conv(x)
            x = nn.leaky_relu(self.norm(x, train, self.dtype) if n else x, 0.2)
        x = nn.Dense(self.hidden, kernel_init=START, dtype=self.dtype)(x.reshape(x.shape[0], -1))
        x = nn.leaky_relu(self.norm(x, train, self.dtype), 0.2)
        return nn.Dense(1, kernel_init=START, dtype=self.dtype)(x)[:, 0].astype(jnp.float32)
