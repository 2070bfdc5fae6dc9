"""Ensemble of perceptrons for tables (Gorishniy, Kotelnikov & Babenko, 2025), side by side.

Shapes: B rows of F inputs, N of which are numbers; M members, O outputs.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.hyperparameters import Rate
from jaxdl.models.mlp import MLP
from jaxdl.nn.activations import Activation

FREQUENCIES = 16  # cosines for each number


class Periodic(nn.Module):
    """Periodic embedding of numbers (Gorishniy, Rubachev & Babenko, 2022).

    Each number x becomes a linear function of cos(2 pi (w x + b)) with trained w and b, beside x
    itself: [B, N] -> [B, N * (1 + features)].

    Attributes:
      features: outputs for each number, besides itself.
      scale: standard deviation of w before training, in periods per unit of x.
    """

    features: int
    scale: Rate

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Embeds each column of x [B, N] by itself."""
        N, initializers = x.shape[1], nn.initializers
        shape = (N, FREQUENCIES)
        frequency = self.param("frequency", initializers.normal(1.0), shape) * self.scale
        phase = self.param("phase", initializers.uniform(1.0), shape)
        waves = jnp.cos(2 * jnp.pi * (x[:, :, None] * frequency[None] + phase[None]))
        kernel = self.param(
            "kernel",
            initializers.normal(FREQUENCIES**-0.5),
            (*shape, self.features),
        )
        bias = self.param("bias", initializers.zeros, (N, self.features))
        embedded = jnp.einsum("bnf,nfo->bno", waves, kernel) + bias[None]
        return jnp.concatenate([x, jax.lax.collapse(embedded, 1)], axis=1)


class _Member(nn.Module):
    """A network of the ensemble: [B, F] -> [B, O]."""

    network: MLP
    numeric: int
    features: int
    scale: Rate
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.features and self.numeric:
            numbers = Periodic(self.features, self.scale)(x[:, : self.numeric])
            others = [x[:, self.numeric :]] if x.shape[1] > self.numeric else []
            x = jnp.concatenate([numbers, *others], axis=1)
        return self.network(x, train=self.train)


class TabularMLP(nn.Module):
    """Ensemble of perceptrons with embeddings of numbers: [B, F] -> [B, M, O], float32.

    The members share nothing but the batch. One-hot inputs are embedded by the first layer.

    Attributes:
      outputs: O.
      hidden: units of each hidden layer.
      numeric: N, the first inputs.
      members: M.
      features: outputs of the periodic embedding of each number; 0: none.
      scale: scale of its frequencies, see `Periodic`.
      activation: activation of the hidden layers.
      dropout: dropout rate after each activation.
      dtype: dtype of the computation; parameters and outputs are float32.
    """

    outputs: int
    hidden: tuple[int, ...]
    numeric: int
    members: int = 16
    features: int = 0
    scale: Rate = 0.1
    activation: Activation = nn.relu
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps x [B, F]; each member has its own parameters and dropout."""
        network = partial(MLP, self.outputs, self.hidden, self.activation, dtype=self.dtype)
        members = nn.vmap(
            _Member,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=None,
            out_axes=1,
            axis_size=self.members,
        )
        return members(
            network(dropout=self.dropout, parent=None),
            self.numeric,
            self.features,
            self.scale,
            train,
        )(x)
