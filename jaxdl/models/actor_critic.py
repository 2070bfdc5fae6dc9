"""Networks of an agent: a policy and a value, each a perceptron.

Shapes: B observations of D numbers, A actions.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


class ActorCritic(nn.Module):
    """[B, D] -> logits of actions, float32 [B, A], and values, float32 [B].

    Hidden units are tanh, kernels orthogonal: the policy's last is small, so that all actions are
    as good as equally likely at first (Andrychowicz et al., 2021).

    Attributes:
      actions: A.
      hidden: units of each hidden layer, of policy and value alike.
      dtype: of the computation; parameters and outputs are float32.
    """

    actions: int
    hidden: tuple[int, ...] = (64, 64)
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Policy and value of observations x [B, D]."""
        logits = self._perceptron(x, self.actions, 0.01, "policy")
        return logits, self._perceptron(x, 1, 1.0, "value")[..., 0]

    def _perceptron(self, x: jax.Array, outputs: int, last: float, name: str) -> jax.Array:
        x = x.astype(self.dtype)
        for n, units in enumerate(self.hidden):
            x = nn.tanh(_dense(units, 2**0.5, self.dtype, f"{name}_{n}")(x))
        return _dense(outputs, last, self.dtype, name)(x).astype(jnp.float32)


def _dense(units: int, scale: float, dtype: DTypeLike, name: str) -> nn.Dense:
    kernel = nn.initializers.orthogonal(scale)
    return nn.Dense(units, kernel_init=kernel, dtype=dtype, name=name)
