"""Encoders and decoders of images (Hinton & Salakhutdinov, 2006; Kingma & Welling, 2014).

Shapes: B images of S by S pixels with C channels, L latent numbers.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from jaxdl.losses import normal_divergence
from jaxdl.models.mlp import MLP


class Coder(nn.Module):
    """Two perceptrons: from images to numbers of their latents, and from latents to images.

    Attributes:
      shape: S, S, C.
      latents: L.
      hidden: units of the hidden layers, in the decoder the other way round.
      dtype: of the computation; parameters and outputs are float32.
    """

    shape: tuple[int, ...]
    latents: int
    hidden: tuple[int, ...] = (512, 256)
    dtype: DTypeLike = jnp.float32
    numbers = 1  # that the encoder gives for each latent

    def setup(self) -> None:
        """Makes both perceptrons."""
        S, _, C = self.shape
        self.encoder = MLP(self.numbers * self.latents, self.hidden, dtype=self.dtype)
        self.decoder = MLP(S * S * C, self.hidden[::-1], dtype=self.dtype)

    def encode(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """The numbers of x [B, S, S, C]: [B, numbers * L]."""
        return self.encoder(x, train=train)

    def decode(self, z: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits of the brightness of the images of z [B, L]: [B, S, S, C]."""
        return self.decoder(z, train=train).reshape(-1, *self.shape)


class Autoencoder(Coder):
    """A code of each image, and an image of each code."""

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Logits of the brightness of x [B, S, S, C], by its code."""
        return self.decode(self.encode(x, train=train), train=train)


def draw(mean: jax.Array, log_variance: jax.Array, noise: jax.Array) -> jax.Array:
    """Latents by standard normal noise: [B, L] each, and differentiable by the first two."""
    return mean + jnp.exp(0.5 * log_variance) * noise


class Drawn(NamedTuple):
    """Outputs of a VAE for images and noise."""

    logits: jax.Array  # of the brightness [B, S, S, C], for the latents that were drawn
    mean: jax.Array  # of the latents, [B, L]
    log_variance: jax.Array  # [B, L]


class VAE(Coder):
    """A normal distribution of latents for each image, and an image for each draw of them."""

    numbers = 2

    def __call__(self, inputs: tuple[jax.Array, jax.Array], *, train: bool) -> Drawn:
        """For images [B, S, S, C] and standard normal noise [B, L]."""
        x, noise = inputs
        mean, log_variance = jnp.split(self.encode(x, train=train), 2, axis=-1)
        z = draw(mean, log_variance, noise)
        return Drawn(self.decode(z, train=train), mean, log_variance)


def terms(drawn: Drawn, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The reconstruction's and the divergence's term of the negative lower bound, nats [B] each.

    Pixels x [B, S, S, C] are means of Bernoulli variables, in 0 to 1.
    """
    each = optax.sigmoid_binary_cross_entropy(drawn.logits, x)
    return jnp.sum(each, axis=(1, 2, 3)), normal_divergence(drawn.mean, drawn.log_variance)


def log_weight(drawn: Drawn, x: jax.Array, noise: jax.Array) -> jax.Array:
    """Log importance weight log p(x, z) / q(z | x) of the latents z that noise [B, L] drew: [B].

    The mean of the weights of many draws is an estimate of p(x) (Burda et al., 2016).
    """
    z = draw(drawn.mean, drawn.log_variance, noise)
    prior = -0.5 * jnp.sum(z**2, axis=-1)
    own = -0.5 * jnp.sum(noise**2 + drawn.log_variance, axis=-1)
    return prior - terms(drawn, x)[0] - own
