"""VGG networks (Simonyan & Zisserman, 2015): stages of 3x3 convolutions, each with max pooling.

Shapes: B images of H by W with C channels.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.nn.conv import square_conv
from jaxdl.nn.dropout import Dropout
from jaxdl.nn.norm import NORMS, Norm
from jaxdl.nn.pooling import adaptive_average, max_pool

WIDTHS = (64, 128, 256, 512, 512)  # channels of the five stages
CONVOLUTIONS = {  # convolutions of each stage, by depth: the number of layers with weights
    11: (1, 1, 2, 2, 2),  # configuration A of the paper's table 1
    13: (2, 2, 2, 2, 2),  # B
    16: (2, 2, 3, 3, 3),  # D
    19: (2, 2, 4, 4, 4),  # E
}


class VGG(nn.Module):
    """VGG network: [B, H, W, C] -> logits [B, num_classes], float32; H and W at least 32.

    Attributes:
      num_classes: number of classes.
      depth: number of layers with weights: 11, 13, 16 or 19.
      norm: normalisation before each rectifier of the stages (none in the paper).
      hidden: widths of the fully connected layers before the last: (4096, 4096) in the paper,
        none in the usual variant for CIFAR.
      pooled: height and width of the average pooling after the stages; 0: none, as in the paper.
        torchvision's networks have 7, which changes nothing for images of 224x224 pixels.
      dropout: dropout rate after each hidden layer (before the last layer if there are none).
      width_multiplier: factor of all widths except `num_classes`.
      dtype: dtype of the computation; parameters, statistics and logits are float32.
      remat: whether the backward pass keeps only the activations between stages and recomputes the
        others (Chen et al., 2016). Has no effect on a CPU, where XLA merges the recomputation with
        the forward pass.
    """

    num_classes: int
    depth: int = 16
    norm: Norm = NORMS["batch"]
    hidden: tuple[int, ...] = ()
    pooled: int = 0
    dropout: float = 0.5
    width_multiplier: float = 1.0
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Classifies x [B, H, W, C]; training applies dropout and updates running statistics."""
        x = x.astype(self.dtype)
        for width, convolutions in zip(WIDTHS, CONVOLUTIONS[self.depth], strict=True):
            stage = partial(
                _stage, width=self._scaled(width), convolutions=convolutions, train=train
            )
            x = (nn.remat(stage) if self.remat else stage)(self, x)
        x = adaptive_average(x, self.pooled) if self.pooled else x
        x = x.reshape(x.shape[0], -1)
        drop = Dropout(self.dropout, deterministic=not train)
        for width in self.hidden:
            x = drop(nn.relu(nn.Dense(self._scaled(width), dtype=self.dtype)(x)))
        x = x if self.hidden else drop(x)
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)

    def _scaled(self, width: int) -> int:
        return max(1, round(width * self.width_multiplier))


def _stage(model: VGG, x: jax.Array, width: int, convolutions: int, train: bool) -> jax.Array:
    """One stage, convolutions and max pooling: [B, H, W, C] -> [B, H // 2, W // 2, width]."""
    for _ in range(convolutions):
        x = square_conv(width, dtype=model.dtype)(x)
        x = nn.relu(model.norm(x, train, model.dtype))
    return max_pool(x)
