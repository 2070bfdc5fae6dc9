"""Actor-critic network: a policy and a value function, each a multi-layer perceptron.

Shapes: B observations of D features, A actions.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


class ActorCritic(nn.Module):
    """Actor-critic: [B, D] -> action logits, float32 [B, A], and values, float32 [B].

    Hidden units are tanh, and kernels are orthogonal. The policy's last kernel is small, so that
    all actions are almost equally likely at first (Andrychowicz et al., 2021).

    Attributes:
      actions: A.
      hidden: units of each hidden layer, the same for policy and value.
      dtype: dtype of the computation; parameters and outputs are float32.
    """

    actions: int
    hidden: tuple[int, ...] = (64, 64)
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Action logits and values of observations x [B, D]."""
        logits = self._perceptron(x, self.actions, 0.01, "policy")
        values = self._perceptron(x, 1, 1.0, "value")[..., 0]
        return logits, values

    def _perceptron(self, x: jax.Array, outputs: int, scale: float, name: str) -> jax.Array:
        """Multi-layer perceptron; `scale`: gain of the last kernel's initialisation."""
        x = x.astype(self.dtype)
        for n, units in enumerate(self.hidden):
            x = nn.tanh(_dense(units, 2**0.5, self.dtype, f"{name}_{n}")(x))
        return _dense(outputs, scale, self.dtype, name)(x).astype(jnp.float32)


def _dense(units: int, scale: float, dtype: DTypeLike, name: str) -> nn.Dense:
    kernel_init = nn.initializers.orthogonal(scale)
    return nn.Dense(units, kernel_init=kernel_init, dtype=dtype, name=name)
