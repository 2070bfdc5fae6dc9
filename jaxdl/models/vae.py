"""Autoencoders (Hinton & Salakhutdinov, 2006) and variational ones (Kingma & Welling, 2014).

Shapes: B images of S by S pixels with C channels, L latent variables.
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
    """Encoder and decoder of images, each a multi-layer perceptron.

    Attributes:
      shape: S, S, C.
      latents: L.
      hidden: units of the encoder's hidden layers; the decoder's are in reverse order.
      dtype: dtype of the computation; parameters and outputs are float32.
      numbers: encoder outputs per latent variable, set by each subclass.
    """

    shape: tuple[int, ...]
    latents: int
    hidden: tuple[int, ...] = (512, 256)
    dtype: DTypeLike = jnp.float32
    numbers = 1

    def setup(self) -> None:
        """Creates both perceptrons."""
        S, _, C = self.shape
        self.encoder = MLP(self.numbers * self.latents, self.hidden, dtype=self.dtype)
        self.decoder = MLP(S * S * C, self.hidden[::-1], dtype=self.dtype)

    def encode(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Encodes images [B, S, S, C] -> [B, numbers * L]."""
        return self.encoder(x, train=train)

    def decode(self, z: jax.Array, *, train: bool = False) -> jax.Array:
        """Decodes latents z [B, L] to the logits of pixels in 0 to 1, [B, S, S, C]."""
        return self.decoder(z, train=train).reshape(-1, *self.shape)


class Autoencoder(Coder):
    """Autoencoder: an image is encoded to L numbers, and decoded from them."""

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Reconstructs images x [B, S, S, C], as logits of pixels in 0 to 1."""
        return self.decode(self.encode(x, train=train), train=train)


def reparameterize(mean: jax.Array, log_variance: jax.Array, noise: jax.Array) -> jax.Array:
    """Reparameterised sample of normal latents (Kingma & Welling, 2014), all arrays [B, L].

    Differentiable with respect to `mean` and `log_variance`.

    Args:
      mean: means of the latents.
      log_variance: logarithms of their variances.
      noise: standard normal noise.

    >>> reparameterize(jnp.array([[1.0]]), jnp.array([[0.0]]), jnp.array([[0.5]])).tolist()
    [[1.5]]
    """
    return mean + jnp.exp(0.5 * log_variance) * noise


class VAEOutput(NamedTuple):
    """Outputs of a VAE for images and noise.

    Attributes:
      logits: logits of pixels in 0 to 1, decoded from the sampled latents, [B, S, S, C].
      mean: means of the latents, [B, L].
      log_variance: logarithms of the variances of the latents, [B, L].
    """

    logits: jax.Array
    mean: jax.Array
    log_variance: jax.Array


class VAE(Coder):
    """Variational autoencoder with normal latents (Kingma & Welling, 2014)."""

    numbers = 2

    def __call__(self, inputs: tuple[jax.Array, jax.Array], *, train: bool) -> VAEOutput:
        """Encodes, samples and decodes (images [B, S, S, C], standard normal noise [B, L])."""
        x, noise = inputs
        mean, log_variance = jnp.split(self.encode(x, train=train), 2, axis=-1)
        z = reparameterize(mean, log_variance, noise)
        return VAEOutput(self.decode(z, train=train), mean, log_variance)


def elbo_terms(drawn: VAEOutput, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Terms of the negative evidence lower bound (ELBO): reconstruction and KL divergence.

    Args:
      drawn: outputs of the VAE for `x`.
      x: images [B, S, S, C]; pixels in 0 to 1 are means of Bernoulli variables.

    Returns:
      (reconstruction error, KL divergence from the standard normal prior), in nats, [B] each.
    """
    cross_entropy = optax.sigmoid_binary_cross_entropy(drawn.logits, x)
    reconstruction = jnp.sum(cross_entropy, axis=(1, 2, 3))
    return reconstruction, normal_divergence(drawn.mean, drawn.log_variance)


def log_weight(drawn: VAEOutput, x: jax.Array, noise: jax.Array) -> jax.Array:
    """Log importance weight log(p(x, z) / q(z | x)) of the sampled latents z.

    The mean of the weights of many samples estimates p(x) (Burda et al., 2016).

    Args:
      drawn: outputs of the VAE for `x` and `noise`.
      x: images [B, S, S, C].
      noise: standard normal noise [B, L].

    Returns:
      [B], in nats.
    """
    z = reparameterize(drawn.mean, drawn.log_variance, noise)
    # Both log densities without the constant of the normal distribution, which cancels.
    log_prior = -0.5 * jnp.sum(z**2, axis=-1)
    log_posterior = -0.5 * jnp.sum(noise**2 + drawn.log_variance, axis=-1)
    return log_prior - elbo_terms(drawn, x)[0] - log_posterior
