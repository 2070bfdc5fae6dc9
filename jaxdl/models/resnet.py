"""Residual networks (He et al., 2016a), optionally with pre-activation (He et al., 2016b).

Shapes: B images of H by W with C channels.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.nn.conv import Conv, square_conv
from jaxdl.nn.dropout import StochasticDepth
from jaxdl.nn.norm import NORMS, Norm

# Channels of the four stages, and their numbers of blocks by depth: table 1 of the paper.
WIDTHS = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
STEMS = ("cifar", "imagenet")

MakeConv = Callable[..., Conv]  # (width, size=3, stride=1) -> layer
ApplyNorm = Callable[[jax.Array], jax.Array]


class ResNet(nn.Module):
    """Residual network: [B, H, W, C] -> logits [B, num_classes], float32.

    Attributes:
      num_classes: number of classes.
      depth: 18 or 34, with blocks of two 3x3 convolutions; 50, with bottleneck blocks.
      stem: `cifar` for a 3x3 convolution; `imagenet` for a 7x7 convolution of stride 2 and 3x3 max
        pooling of stride 2.
      pre_activation: whether to normalise and rectify before each convolution, with an identity
        path without activations.
      norm: normalisation after each convolution (before it, with pre-activation).
      stochastic_depth: probability that the last block is dropped for an example in training; the
        probability grows linearly from the first block to the last (Huang et al., 2016).
      width_multiplier: factor of all widths except `num_classes`.
      dtype: dtype of the computation; parameters, statistics and logits are float32.
      remat: whether the backward pass keeps only the activations between blocks and recomputes the
        others (Chen et al., 2016). Has no effect on a CPU, where XLA merges the recomputation with
        the forward pass.
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
        conv = partial(square_conv, use_bias=False, dtype=self.dtype)
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
        index, blocks = 0, sum(BLOCKS[self.depth])
        for stage, (width, count) in enumerate(zip(WIDTHS, BLOCKS[self.depth], strict=True)):
            for block in range(count):
                index += 1
                drop = StochasticDepth(self.stochastic_depth * index / blocks, not train)
                stride = 2 if stage > 0 and block == 0 else 1
                run: Any = partial(
                    _block,
                    branch=branch,
                    conv=conv,
                    norm=norm,
                    width=self._scaled(width),
                    stride=stride,
                )
                shortcut, y = (nn.remat(run) if self.remat else run)(self, x)
                x = shortcut + drop(y)
                x = x if self.pre_activation else nn.relu(x)
        x = nn.relu(norm(x)) if self.pre_activation else x
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)

    def _scaled(self, width: int) -> int:
        return max(1, round(width * self.width_multiplier))


def _block(
    model: ResNet,
    x: jax.Array,
    branch: Any,
    conv: MakeConv,
    norm: ApplyNorm,
    width: int,
    stride: int,
) -> tuple[jax.Array, jax.Array]:
    """Shortcut and residual branch of a block; `nn.remat` needs a function of the module."""
    return branch(model.pre_activation, conv, norm, x, width, stride)


def _basic(
    pre_activation: bool, conv: MakeConv, norm: ApplyNorm, x: jax.Array, width: int, stride: int
) -> tuple[jax.Array, jax.Array]:
    """Basic block: shortcut, and a branch of two 3x3 convolutions, the first with the stride."""
    if pre_activation:
        return _pre_activated(conv, norm, x, [(width, 3, stride), (width, 3, 1)])
    y = nn.relu(norm(conv(width, 3, stride)(x)))
    y = norm(conv(width)(y))
    return _shortcut(conv, norm, x, width, stride), y


def _bottleneck(
    pre_activation: bool, conv: MakeConv, norm: ApplyNorm, x: jax.Array, width: int, stride: int
) -> tuple[jax.Array, jax.Array]:
    """Bottleneck block: shortcut, and a branch of 1x1, 3x3 and 1x1 convolutions.

    They have `width`, `width` and four times `width` channels. The stride is in the 3x3
    convolution, as in all published weights, not in the first 1x1 convolution as in the paper.
    """
    if pre_activation:
        layers = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
        return _pre_activated(conv, norm, x, layers)
    y = nn.relu(norm(conv(width, 1)(x)))
    y = nn.relu(norm(conv(width, 3, stride)(y)))
    y = norm(conv(4 * width, 1)(y))
    return _shortcut(conv, norm, x, 4 * width, stride), y


def _shortcut(conv: MakeConv, norm: ApplyNorm, x: jax.Array, width: int, stride: int) -> jax.Array:
    """Shortcut: the identity, or a projection where the shape changes (option B of the paper)."""
    if x.shape[-1] == width and stride == 1:
        return x
    return norm(conv(width, 1, stride)(x))


def _pre_activated(
    conv: MakeConv, norm: ApplyNorm, x: jax.Array, layers: list[tuple[int, int, int]]
) -> tuple[jax.Array, jax.Array]:
    """Shortcut, and a branch of convolutions (width, size, stride), each after norm and ReLU."""
    y = nn.relu(norm(x))
    width, stride = layers[-1][0], max(stride for _, _, stride in layers)
    same = x.shape[-1] == width and stride == 1
    # The projection is of the activated input, and has no norm of its own.
    shortcut = x if same else conv(width, 1, stride)(y)
    for n, (width, size, stride) in enumerate(layers):
        y = conv(width, size, stride)(y if n == 0 else nn.relu(norm(y)))
    return shortcut, y
