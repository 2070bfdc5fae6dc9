"""Vision transformer (Dosovitskiy et al., 2021), with mean pooling or a class token.

Shapes: B images of H by W with C channels; N patches of p by p pixels; D features.
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
    """Vision transformer: [B, H, W, C] -> logits [B, num_classes], float32.

    Attributes:
      num_classes: number of classes.
      patch: p, side of a patch in pixels, must divide H and W.
      layers: number of pre-norm blocks.
      heads: number of attention heads, must divide `features`.
      features: D.
      hidden: hidden units of each block's feed-forward network.
      dropout: dropout rate of the patches, of each branch and of the attention weights.
      class_token: whether a learnt token before the patches is classified, as in the paper, instead
        of their mean.
      dtype: dtype of the computation; parameters and logits are float32.
    """

    num_classes: int
    patch: int = 4
    layers: int = 6
    heads: int = 4
    features: int = 128
    hidden: int = 256
    dropout: float = 0.0
    class_token: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Classifies x [B, H, W, C]; training applies dropout.

        Raises:
          UserError: `patch` does not divide H and W.
        """
        x = patches(x.astype(self.dtype), self.patch)
        x = Dense(self.features, dtype=self.dtype, name="embed")(x)
        if self.class_token:
            token = self.param("class_token", nn.initializers.zeros, (1, 1, self.features))
            first = jnp.broadcast_to(token.astype(self.dtype), (x.shape[0], 1, self.features))
            x = jnp.concatenate([first, x], axis=1)
        positions = self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = Dropout(self.dropout, deterministic=not train)(x + positions.astype(self.dtype))
        block = partial(
            Block, self.features, self.heads, self.hidden, dropout=self.dropout, dtype=self.dtype
        )
        mask = jnp.ones((1, 1, x.shape[1]), bool)  # each patch sees all patches
        x = Encoder(self.layers, block, self.dtype, name="encoder")(x, mask, train=train)
        if self.class_token:
            x = x[:, 0]
        else:
            x = jnp.mean(x.astype(jnp.float32), axis=1).astype(self.dtype)
        return Dense(self.num_classes, dtype=self.dtype, name="head")(x).astype(jnp.float32)


def patches(x: jax.Array, size: int) -> jax.Array:
    """Splits images into square patches, row by row: [B, H, W, C] -> [B, N, size * size * C].

    Args:
      x: images [B, H, W, C].
      size: side of a patch, in pixels.

    Raises:
      UserError: `size` does not divide H and W.

    >>> patches(jnp.zeros((1, 8, 8, 3)), 4).shape
    (1, 4, 48)
    """
    B, H, W, C = x.shape
    if H % size or W % size:
        raise UserError(f"patch={size} does not divide images of {H}x{W}: give one that does")
    x = x.reshape(B, H // size, size, W // size, size, C).swapaxes(2, 3)
    return x.reshape(B, -1, size * size * C)
