"""LeNet-5 (LeCun, Bottou, Bengio & Haffner, 1998), with the usual simplifications.

Shapes: B images of H by W with C channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.nn.activations import Activation
from jaxdl.nn.conv import ConvPool
from jaxdl.nn.pooling import POOLS, Pool


class LeNet5(nn.Module):
    """LeNet-5: [B, H, W, C] -> logits [B, num_classes], float32; H and W at least 12.

    Has 61,706 parameters on 28x28 grey images with ten classes. Each channel of the second
    convolution sees all channels of the first, and the last layer is linear: the paper's connection
    table and its radial basis units are left out.

    Attributes:
      num_classes: number of classes.
      activation: activation after each layer but the last; tanh in the paper.
      pool: pooling after each convolution; average in the paper, with a trained gain and bias.
      dtype: dtype of the computation; parameters and logits are float32.
    """

    num_classes: int
    activation: Activation = jnp.tanh
    pool: Pool = POOLS["average"]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Classifies x [B, H, W, C]."""
        del train
        # The paper pads 28x28 digits to 32x32: a border of 2 pixels on each side.
        for features, padding in ((6, 2), (16, 0)):
            x = ConvPool(features, 5, padding, self.activation, self.pool, self.dtype)(x)
        x = x.reshape(x.shape[0], -1)
        for units in (120, 84):
            x = self.activation(nn.Dense(units, dtype=self.dtype)(x))
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)
