"""Small convolutional network: convolution, activation and pooling, repeated, then dense layers.

Shapes: B images of H by W with C channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.nn.activations import Activation
from jaxdl.nn.conv import square_conv
from jaxdl.nn.dropout import Dropout
from jaxdl.nn.norm import NORMS, Norm
from jaxdl.nn.pooling import POOLS, Pool


class CNN(nn.Module):
    """Small convolutional network: [B, H, W, C] -> logits [B, num_classes], float32.

    H and W must be at least 2 at each pooling over windows, which halves them.

    Attributes:
      num_classes: number of classes.
      channels: output channels of each 3x3 convolution; a pooling follows each.
      hidden: units of the hidden dense layer.
      activation: activation after each convolution and the hidden layer.
      pool: pooling after each convolution's activation.
      norm: normalisation before each activation.
      dropout: dropout rate after the hidden layer.
      dtype: dtype of the computation; parameters and logits are float32.
    """

    num_classes: int
    channels: tuple[int, ...] = (16, 32)
    hidden: int = 128
    activation: Activation = nn.relu
    pool: Pool = POOLS["max"]
    norm: Norm = NORMS["none"]
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Classifies x [B, H, W, C]; training applies dropout and updates running statistics."""
        for width in self.channels:
            x = self.norm(square_conv(width, dtype=self.dtype)(x), train, self.dtype)
            x = self.pool(self.activation(x))
        x = nn.Dense(self.hidden, dtype=self.dtype)(x.reshape(x.shape[0], -1))
        x = self.activation(self.norm(x, train, self.dtype))
        x = Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)
