"""LeNet-5 (LeCun, Bottou, Bengio & Haffner, 1998), as it is usually simplified.

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
    """[B, H, W, C] -> logits [B, num_classes], float32; 61,706 parameters on 28x28 grey images.

    Every map of the second convolution sees all of the first, and the last layer is linear: the
    paper's table of connections and its radial units are left out.

    Attributes:
      num_classes: K.
      activation: tanh in the paper.
      pool: average in the paper, there with a trained gain and bias.
      dtype: of the computation; parameters and logits are float32.
    """

    num_classes: int
    activation: Activation = jnp.tanh
    pool: Pool = POOLS["average"]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Classifies x [B, H, W, C]; H and W at least 12."""
        del train
        # 28x28 digits were drawn onto 32x32: a border of 2 on each side.
        for features, padding in ((6, 2), (16, 0)):
            x = ConvPool(features, 5, padding, self.activation, self.pool, self.dtype)(x)
        x = x.reshape(x.shape[0], -1)
        for units in (120, 84):
            x = self.activation(nn.Dense(units, dtype=self.dtype)(x))
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)
