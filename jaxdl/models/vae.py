"""Encoders and decoders of images (Hinton & Salakhutdinov, 2006; Kingma & Welling, 2014).

Shapes: B images of S by S pixels with C channels, L latent numbers.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.models.mlp import MLP


class VAE(nn.Module):
    """A normal distribution of latents for each image, and images for latents.

    Attributes:
      shape: S, S, C.
      latents: L.
      hidden: units of the hidden layers, in the decoder the other way round.
      dtype: of the computation; parameters and outputs are float32.
    """

    shape: tuple[int, int, int]
    latents: int
    hidden: tuple[int, ...] = (512, 256)
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Makes both perceptrons."""
        S, _, C = self.shape
        self.encoder = MLP(2 * self.latents, self.hidden, dtype=self.dtype)
        self.decoder = MLP(S * S * C, self.hidden[::-1], dtype=self.dtype)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The logits for the mean latents of x [B, S, S, C]."""
        return self.decode(self.encode(x, train=train)[0], train=train)

    def encode(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Mean and logarithm of the variance of latents: [B, L] each."""
        mean, log_variance = jnp.split(self.encoder(x, train=train), 2, axis=-1)
        return mean, log_variance

    def decode(self, z: jax.Array, *, train: bool) -> jax.Array:
        """Logits of the pixels' brightness for latents z [B, L]: [B, S, S, C]."""
        return self.decoder(z, train=train).reshape(-1, *self.shape)


class Autoencoder(nn.Module):
    """A code of each image, and an image of each code.

    Attributes:
      shape: S, S, C.
      latents: L.
      hidden: units of the hidden layers, in the decoder the other way round.
      dtype: of the computation; parameters and outputs are float32.
    """

    shape: tuple[int, int, int]
    latents: int
    hidden: tuple[int, ...] = (512, 256)
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Makes both perceptrons."""
        S, _, C = self.shape
        self.encoder = MLP(self.latents, self.hidden, dtype=self.dtype)
        self.decoder = MLP(S * S * C, self.hidden[::-1], dtype=self.dtype)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Logits of the brightness of x [B, S, S, C], by its code."""
        return self.decoder(self.encode(x, train=train), train=train).reshape(x.shape)

    def encode(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """The codes of x: [B, L]."""
        return self.encoder(x, train=train)
