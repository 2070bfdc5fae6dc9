"""Generator and discriminator of deep convolutional GANs (Radford et al., 2016).

Each has one hidden dense layer, as InfoGAN's networks for MNIST have (Chen et al., 2016, appendix
C.1). Two convolutions see only a single stroke of a digit; a dense layer sees whether all strokes
fit together.

Shapes: B images of S by S pixels with C channels, S a multiple of four; L latent variables.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.nn.conv import Conv, ConvTranspose
from jaxdl.nn.norm import NORMS, Norm

START = nn.initializers.normal(0.02)  # initialisation of all kernels, as in the paper


class Generator(nn.Module):
    """Generator: latents [B, L] -> images with pixels in -1 to 1, float32 [B, S, S, C].

    Attributes:
      size: S.
      channels: C.
      width: channels of the last hidden layer; the layer before has twice as many.
      hidden: units of the first layer.
      norm: normalisation before each rectifier.
      dtype: dtype of the computation; parameters and images are float32.
    """

    size: int
    channels: int
    width: int = 32
    hidden: int = 512
    norm: Norm = NORMS["batch"]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool) -> jax.Array:
        """Generates the images of latents z [B, L]; training updates running statistics."""
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
    """Discriminator, or critic of a Wasserstein GAN: images [B, S, S, C] -> score, float32 [B].

    The score is unbounded, larger for images that look more real. A discriminator's score is the
    logit of "real".

    Attributes:
      width: channels of the first layer; the second has twice as many.
      hidden: units of the third layer.
      norm: normalisation after the second and third layers; none after the first, as in the paper.
      dtype: dtype of the computation; parameters and outputs are float32.
    """

    width: int = 32
    hidden: int = 512
    norm: Norm = NORMS["none"]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Scores images x [B, S, S, C]; training updates running statistics if `norm` has any."""
        for n, features in enumerate((self.width, 2 * self.width)):
            conv = Conv(features, (4, 4), 2, 1, kernel_init=START, dtype=self.dtype)
            x = conv(x)
            x = nn.leaky_relu(self.norm(x, train, self.dtype) if n else x, 0.2)
        x = nn.Dense(self.hidden, kernel_init=START, dtype=self.dtype)(x.reshape(x.shape[0], -1))
        x = nn.leaky_relu(self.norm(x, train, self.dtype), 0.2)
        return nn.Dense(1, kernel_init=START, dtype=self.dtype)(x)[:, 0].astype(jnp.float32)
