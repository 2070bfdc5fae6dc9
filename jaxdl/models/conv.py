"""Convolution layers for networks of rectifiers, never slow on any platform.

Shapes: B images of H by W with I channels in, O channels out.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from jaxdl.models import convolution


class Conv(nn.Conv):
    """`nn.Conv` in interface, parameters, initialisation and result, to rounding: only faster.

    On a CPU the gradient by a kernel of 64 channels at 32x32 takes a third of the time in float32
    and a fifth in bfloat16; `jaxdl.models.convolution` says where else. Checkpoints of one are
    those of the other.
    """

    conv_general_dilated: Callable[..., Any] = convolution.general


def square(
    features: int, size: int = 3, stride: int = 1, *, padding: int | None = None, **options: Any
) -> Conv:
    """A square kernel before a rectifier, initialised as He et al. (2015) derive for that.

    `padding` is of zeros on each side; None: (size - 1) // 2, which at stride 1 and for an odd size
    keeps the size of the images. `options` are `nn.Conv`'s others.
    """
    return Conv(
        features,
        (size, size),
        stride,
        (size - 1) // 2 if padding is None else padding,
        kernel_init=nn.initializers.he_normal(),
        **options,
    )
