"""ResNet (He et al., 2016a), and with pre-activation (He et al., 2016b).

Shapes: B images of H by W with C channels.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.nn.conv import square
from jaxdl.nn.dropout import StochasticDepth
from jaxdl.nn.norm import NORMS, Norm

WIDTHS = (64, 128, 256, 512)  # of the four stages
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # in each; the paper's table 1
STEMS = ("cifar", "imagenet")


class ResNet(nn.Module):
    """[B, H, W, C] -> logits [B, num_classes], float32.

    Attributes:
      num_classes: K.
      depth: 18 or 34, of blocks of two 3x3 convolutions; 50, of bottlenecks.
      stem: `cifar`: a 3x3 convolution; `imagenet`: a 7x7 one of stride 2, and 3x3 max pooling of
        stride 2.
      pre_activation: normalise and rectify before each convolution, with a clean identity path.
      norm: after each convolution (before, with pre-activation).
      stochastic_depth: rate at which the last block is left out of an example's training; it grows
        linearly from the first block on (Huang et al., 2016).
      width_multiplier: scales all widths but num_classes.
      dtype: of the computation; parameters, statistics and logits are float32.
      remat: keep only what goes from block to block for the backward pass, and compute the rest
        again there (Chen et al., 2016). On a CPU XLA sees that it is the same, and keeps it.
    """

    num_classes: int
    depth: int = 18
    stem: str = "imagenet"
    pre_activation: bool = False
    norm: Norm = NORMS["batch"]
    stochastic_depth: float = 0.0
    width_multiplier: float = 1.0
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Classifies x [B, H, W, C]; training drops blocks and updates running statistics."""
        conv = partial(square, use_bias=False, dtype=self.dtype)
        norm = lambda x: self.norm(x, train, self.dtype)  # noqa: E731
        if self.stem == "cifar":
            x = conv(self._scaled(WIDTHS[0]))(x)
        else:
            x = conv(self._scaled(WIDTHS[0]), 7, 2)(x)
        if not self.pre_activation:
            x = nn.relu(norm(x))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        branch = _bottleneck if self.depth >= 50 else _basic
        made, blocks = 0, sum(BLOCKS[self.depth])
        for stage, (width, count) in enumerate(zip(WIDTHS, BLOCKS[self.depth], strict=True)):
            for block in range(count):
                made += 1
                drop = StochasticDepth(self.stochastic_depth * made / blocks, not train)
                stride = 2 if stage > 0 and block == 0 else 1
                run: Any = partial(_block, branch=branch, width=self._scaled(width), stride=stride)
                run = partial(run, conv=conv, norm=norm)
                shortcut, y = (nn.remat(run) if self.remat else run)(self, x)
                x = shortcut + drop(y)
                x = x if self.pre_activation else nn.relu(x)
        x = nn.relu(norm(x)) if self.pre_activation else x
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)

    def _scaled(self, width: int) -> int:
        return max(1, round(width * self.width_multiplier))


def _block(
    model: ResNet, x: jax.Array, branch: Any, conv: Any, norm: Any, width: int, stride: int
) -> tuple[jax.Array, jax.Array]:
    """The shortcut and the residual branch of a block, as a function of its model: for `remat`."""
    return branch(model.pre_activation, conv, norm, x, width, stride)


def _basic(
    pre_activation: bool, conv: Any, norm: Any, x: jax.Array, width: int, stride: int
) -> tuple[jax.Array, jax.Array]:
    """The shortcut and the residual branch of two 3x3 convolutions, the first of that stride."""
    if pre_activation:
        return _pre_activated(conv, norm, x, [(width, 3, stride), (width, 3, 1)])
    y = nn.relu(norm(conv(width, 3, stride)(x)))
    y = norm(conv(width)(y))
    return _shortcut(conv, norm, x, width, stride), y


def _bottleneck(
    pre_activation: bool, conv: Any, norm: Any, x: jax.Array, width: int, stride: int
) -> tuple[jax.Array, jax.Array]:
    """1x1 down to `width`, 3x3 of that stride, 1x1 up to four times `width`.

    The stride is the middle one's, as all published weights have it, not the first one's as in the
    paper.
    """
    if pre_activation:
        layers = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
        return _pre_activated(conv, norm, x, layers)
    y = nn.relu(norm(conv(width, 1)(x)))
    y = nn.relu(norm(conv(width, 3, stride)(y)))
    y = norm(conv(4 * width, 1)(y))
    return _shortcut(conv, norm, x, 4 * width, stride), y


def _shortcut(conv: Any, norm: Any, x: jax.Array, width: int, stride: int) -> jax.Array:
    """The identity, or where the shape changes its projection (option B)."""
    if x.shape[-1] == width and stride == 1:
        return x
    return norm(conv(width, 1, stride)(x))


def _pre_activated(
    conv: Any, norm: Any, x: jax.Array, layers: list[tuple[int, int, int]]
) -> tuple[jax.Array, jax.Array]:
    """The shortcut and a branch of convolutions (width, size, stride), each after norm and ReLU."""
    y = nn.relu(norm(x))
    width, stride = layers[-1][0], max(stride for _, _, stride in layers)
    same = x.shape[-1] == width and stride == 1
    shortcut = x if same else conv(width, 1, stride)(y)  # of what is activated, without a norm
    for n, (width, size, stride) in enumerate(layers):
        y = conv(width, size, stride)(y if n == 0 else nn.relu(norm(y)))
    return shortcut, y
