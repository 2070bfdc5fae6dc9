"""Activation functions by name: elementwise, except softmax, which is over the last axis."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

Activation = Callable[[jax.Array], jax.Array]

ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": nn.sigmoid,  # 1 / (1 + exp(-x))
    "tanh": jnp.tanh,  # (exp(x) - exp(-x)) / (exp(x) + exp(-x))
    "relu": nn.relu,  # max(0, x); its gradient at 0 is 0
    "leaky_relu": partial(nn.leaky_relu, negative_slope=0.01),  # max(x, 0.01 x): Maas et al., 2013
    "elu": nn.elu,  # x above 0, exp(x) - 1 below: Clevert et al., 2016
    "softmax": nn.softmax,
    "gelu": partial(nn.gelu, approximate=False),  # x Phi(x), exact: Hendrycks & Gimpel, 2016
    "silu": nn.silu,  # x sigmoid(x): Elfwing et al., 2018; Swish with beta = 1
    "selu": nn.selu,  # 1.0507 times an ELU with alpha = 1.6733: Klambauer et al., 2017
    "softplus": nn.softplus,  # log(1 + exp(x))
}
