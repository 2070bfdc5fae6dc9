"""Recurrent networks: Elman (1990), LSTM (Gers et al., 2000) and GRU (Cho et al., 2014).

The inputs of all positions enter by one product. `jaxdl.nn.recurrence` computes the rest, position
by position.

Shapes: B examples of T positions with D input features; F features of a state; G gates of a cell.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.errors import UserError
from jaxdl.nn.cells import CELLS, State
from jaxdl.nn.dense import Dense
from jaxdl.nn.dropout import Dropout
from jaxdl.nn.padding import inside
from jaxdl.nn.recurrence import run


class Layer(nn.Module):
    """Recurrent layer in one direction.

    Attributes:
      cell: name of the cell, one of `CELLS`.
      features: F.
      backwards: whether to run from each example's last position to its first.
      dtype: dtype of the products; states are float32.
    """

    cell: str
    features: int
    backwards: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array, state: State) -> tuple[jax.Array, State]:
        """Runs over sequences.

        At the positions after an example's last one, the output is zero and the state unchanged.

        Args:
          x: [B, T, D].
          lengths: int [B], number of positions of each example.
          state: state before the first position, [B, F] each.

        Returns:
          (h float32 [B, T, F], last state).
        """
        cell, F = CELLS[self.cell], self.features
        kernel = self.param("kernel", orthogonal, (F, cell.gates * F))
        B, T = x.shape[:2]
        # As a matrix: otherwise, on a CPU, XLA transposes the largest array for the gradient with
        # respect to the kernel.
        rows = x.swapaxes(0, 1).reshape(T * B, -1)
        projected = Dense(cell.gates * F, dtype=self.dtype, name="input")(rows).reshape(T, B, -1)
        bias = jnp.zeros(cell.gates * F)
        if cell.inner_bias:
            last_gate = self.param("bias", nn.initializers.zeros, (F,))
            bias = jnp.concatenate([bias[F:], last_gate])
        valid = inside(lengths, T).T[..., None]
        operands = projected, kernel.astype(self.dtype), bias, state, valid
        h, state = run(self.cell, self.backwards, *operands)
        return jnp.where(valid, h, 0).swapaxes(0, 1), state


class Recurrent(nn.Module):
    """Stack of recurrent layers, in one direction or in both (Schuster & Paliwal, 1997).

    Attributes:
      cell: name of the cell, one of `CELLS`.
      features: F, features of each direction.
      layers: number of layers.
      bidirectional: whether each layer runs in both directions and concatenates their outputs.
      dropout: dropout rate between layers.
      dtype: dtype of the products and outputs; parameters and states are float32.
    """

    cell: str
    features: int
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        lengths: jax.Array,
        *,
        train: bool,
        carry: tuple[State, ...] | None = None,
    ) -> tuple[jax.Array, tuple[State, ...]]:
        """Runs over sequences.

        Args:
          x: [B, T, D].
          lengths: int [B], number of positions of each example; the others are padding.
          train: whether to apply dropout.
          carry: states that an earlier call returned, to continue from; None: zeros.

        Returns:
          Outputs of the last layer, [B, T, F] or [B, T, 2 * F] if bidirectional, zero at padding;
          and the states after each example's last position, one per layer. If bidirectional there
          are two per layer, forward and backward; the backward one is after the first position.

        Raises:
          UserError: `cell` is not one of `CELLS`, or a carry is given to a bidirectional network.
        """
        if self.cell not in CELLS:
            raise UserError(f"cell={self.cell}: give one of {', '.join(CELLS)}")
        if self.bidirectional and carry is not None:
            raise UserError("bidirectional=True cannot continue from a carry: give carry=None")
        carry = carry or self.start(x.shape[0])
        states: list[State] = []
        for n in range(self.layers):
            if n:
                x = Dropout(self.dropout, deterministic=not train)(x)
            directions = []
            for backwards in (False, True)[: 1 + self.bidirectional]:
                name = f"{'backward' if backwards else 'forward'}_{n}"
                layer = Layer(self.cell, self.features, backwards, self.dtype, name=name)
                h, state = layer(x, lengths, carry[len(states)])
                directions.append(h.astype(self.dtype))
                states.append(state)
            x = jnp.concatenate(directions, axis=-1)
        return x, tuple(states)

    @nn.nowrap
    def start(self, examples: int) -> tuple[State, ...]:
        """Initial states: zeros, for that many examples."""
        zeros = (jnp.zeros((examples, self.features)),) * CELLS[self.cell].states
        return (zeros,) * (self.layers * (1 + self.bidirectional))


def orthogonal(key: jax.Array, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Initializer of a recurrent kernel [F, G * F], orthogonal per gate (Saxe et al., 2014)."""
    features, columns = shape
    keys = jax.random.split(key, columns // features)
    initializer = nn.initializers.orthogonal()
    gates = [initializer(k, (features, features), dtype) for k in keys]
    return jnp.concatenate(gates, axis=1)
