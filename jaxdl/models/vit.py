"""The vision transformer (Dosovitskiy et al., 2021), with the mean of its patches classified.

Shapes: B images of H by W with C channels, p by p pixels a patch, N patches, D features.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.errors import UserError
from jaxdl.nn.dense import Dense
from jaxdl.nn.dropout import Dropout
from jaxdl.nn.transformer import Block, Encoder


class ViT(nn.Module):
    """[B, H, W, C] -> logits [B, num_classes], float32.

    Attributes:
      num_classes: K.
      patch: p, which divides H and W.
      layers: blocks, with normalisation first.
      heads: of attention; they divide `features`.
      features: D.
      hidden: units inside a block.
      dropout: rate of the patches, of each branch, and of the weights of attention.
      dtype: of the computation; parameters and logits are float32.
    """

    num_classes: int
    patch: int = 4
    layers: int = 6
    heads: int = 4
    features: int = 128
    hidden: int = 256
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Classifies x [B, H, W, C]; training draws dropout.

        Raises:
          UserError: patches do not fill the images.
        """
        x = patches(x.astype(self.dtype), self.patch)
        x = Dense(self.features, dtype=self.dtype, name="embed")(x)
        places = self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = Dropout(self.dropout, deterministic=not train)(x + places.astype(self.dtype))
        block = partial(
            Block, self.features, self.heads, self.hidden, dropout=self.dropout, dtype=self.dtype
        )
        every = jnp.ones((1, 1, x.shape[1]), bool)
        x = Encoder(self.layers, block, self.dtype, name="encoder")(x, every, train=train)
        x = jnp.mean(x.astype(jnp.float32), axis=1).astype(self.dtype)
        return Dense(self.num_classes, dtype=self.dtype, name="head")(x).astype(jnp.float32)


def patches(x: jax.Array, size: int) -> jax.Array:
    """Images [B, H, W, C] in squares, row by row: [B, N, size * size * C].

    Raises:
      UserError: squares of this size do not fill the images.
    """
    B, H, W, C = x.shape
    if H % size or W % size:
        raise UserError(f"patch={size} does not divide images of {H}x{W}: give one that does")
    x = x.reshape(B, H // size, size, W // size, size, C).swapaxes(2, 3)
    return x.reshape(B, -1, size * size * C)
