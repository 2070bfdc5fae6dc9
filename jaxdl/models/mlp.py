"""Multi-layer perceptron (Rumelhart, Hinton & Williams, 1986).

Shapes: B examples of D inputs, O outputs.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.nn.activations import Activation
from jaxdl.nn.dropout import Dropout
from jaxdl.nn.norm import NORMS, Norm


class MLP(nn.Module):
    """Multi-layer perceptron: [B, ...] -> [B, outputs], float32.

    Attributes:
      outputs: O.
      hidden: units of each hidden layer; an empty tuple makes it a linear model.
      activation: activation after each hidden layer.
      norm: normalisation before each activation.
      dropout: dropout rate after each activation.
      dtype: dtype of the computation; parameters and outputs are float32.
    """

    outputs: int
    hidden: tuple[int, ...]
    activation: Activation = nn.relu
    norm: Norm = NORMS["none"]
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps x [B, ...], of any rank; training applies dropout and updates running statistics."""
        x = x.reshape(x.shape[0], -1).astype(self.dtype)
        for units in self.hidden:
            x = self.norm(nn.Dense(units, dtype=self.dtype)(x), train, self.dtype)
            x = Dropout(self.dropout, deterministic=not train)(self.activation(x))
        return nn.Dense(self.outputs, dtype=self.dtype)(x).astype(jnp.float32)
