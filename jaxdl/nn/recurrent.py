"""Recurrent networks: Elman's (1990), LSTM (Gers et al., 2000) and GRU (Cho et al., 2014).

Of a layer only the product of the state with the recurrent kernel is computed position by position.
The inputs of all positions are one product before, and the gradient by the recurrent kernel is one
product after.

Shapes: B examples of T positions with D features in; F features of a state; G gates of a cell.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxdl.errors import UserError
from jaxdl.nn import custom_jvp
from jaxdl.nn.cells import CELLS, State
from jaxdl.nn.dense import Dense
from jaxdl.nn.dropout import Dropout
from jaxdl.nn.padding import inside


class Layer(nn.Module):
    """One direction: (x [B, T, D], lengths [B], state) -> (h float32 [B, T, F], state).

    Attributes:
      cell: one of `CELLS`.
      features: F.
      backwards: from each example's last position to its first.
      dtype: of the products; states are float32.
    """

    cell: str
    features: int
    backwards: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array, state: State) -> tuple[jax.Array, State]:
        """Zero at positions after an example's last, where the state stands still."""
        cell, F = CELLS[self.cell], self.features
        kernel = self.param("kernel", orthogonal, (F, cell.gates * F))
        B, T = x.shape[:2]
        # As a matrix: else XLA's gradient by the kernel turns the largest of arrays on a CPU.
        rows = x.swapaxes(0, 1).reshape(T * B, -1)
        projected = Dense(cell.gates * F, dtype=self.dtype, name="input")(rows).reshape(T, B, -1)
        bias = jnp.zeros(cell.gates * F)
        if cell.inner_bias:
            own = self.param("bias", nn.initializers.zeros, (F,))
            bias = jnp.concatenate([bias[F:], own])
        valid = inside(lengths, T).T[..., None]
        given = projected, kernel.astype(self.dtype), bias, state, valid
        h, state = run(self.cell, self.backwards, *given)
        return jnp.where(valid, h, 0).swapaxes(0, 1), state


class Recurrent(nn.Module):
    """Layers of recurrent cells, in one direction or in both (Schuster & Paliwal, 1997).

    Attributes:
      cell: one of `CELLS`.
      features: F, of each direction.
      layers: one on top of the other.
      bidirectional: both directions in each layer, side by side.
      dropout: rate between layers.
      dtype: of the products and outputs; parameters and states are float32.
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
          lengths: int [B], positions of each example that count; they come first.
          train: draws dropout.
          carry: what a call returned, to go on from there; None: zeros.

        Returns:
          Outputs of the last layer [B, T, F] (2 * F, if bidirectional), zero where no position
          counts, and the states after each example's last position: one of each layer, or two (the
          backward one is that after the first position).

        Raises:
          UserError: an unknown cell, or a carry for both directions.
        """
        if self.cell not in CELLS:
            raise UserError(f"cell={self.cell}: give one of {', '.join(CELLS)}")
        if self.bidirectional and carry is not None:
            raise UserError("bidirectional=True has no state to go on from: give no carry")
        carry = carry or self.start(x.shape[0])
        states: list[State] = []
        for n in range(self.layers):
            if n:
                x = Dropout(self.dropout, deterministic=not train)(x)
            sides = []
            for backwards in (False, True)[: 1 + self.bidirectional]:
                name = f"{'backward' if backwards else 'forward'}_{n}"
                layer = Layer(self.cell, self.features, backwards, self.dtype, name=name)
                h, state = layer(x, lengths, carry[len(states)])
                sides.append(h.astype(self.dtype))
                states.append(state)
            x = jnp.concatenate(sides, axis=-1)
        return x, tuple(states)

    @nn.nowrap
    def start(self, examples: int) -> tuple[State, ...]:
        """The states before the first position: zeros."""
        zeros = (jnp.zeros((examples, self.features)),) * CELLS[self.cell].states
        return (zeros,) * (self.layers * (1 + self.bidirectional))


def orthogonal(key: jax.Array, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """A recurrent kernel [F, G * F], orthogonal gate by gate (Saxe et al., 2014)."""
    features, columns = shape
    keys = jax.random.split(key, columns // features)
    one = nn.initializers.orthogonal()
    return jnp.concatenate([one(k, (features, features), dtype) for k in keys], axis=1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def run(
    name: str,
    backwards: bool,
    projected: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    state: State,
    valid: jax.Array,
) -> tuple[jax.Array, State]:
    """All positions of one layer, one after the other; it has derivatives of all orders.

    Args:
      name: of the cell.
      backwards: from the last position to the first.
      projected: [T, B, G * F], what comes from the inputs, with its bias.
      kernel: [F, G * F].
      bias: [G * F], added to what comes from h.
      state: before the first position that is run.
      valid: bool [T, B, 1]; elsewhere the state stands still.

    Returns:
      h after each position, float32 [T, B, F], and the last state.
    """
    return _forward(name, backwards, projected, kernel, bias, state, valid, keep=False)[0]


def _forward(
    name: str,
    backwards: bool,
    projected: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    state: State,
    valid: jax.Array,
    keep: bool = True,
) -> tuple[Any, Any]:
    """The result, and what the gradient needs of each position: what was joined, and the state."""
    cell = CELLS[name]

    def position(state: State, given: Any) -> tuple[State, Any]:
        projected, valid = given
        inner = _product(state[0].astype(kernel.dtype), kernel) + bias[None]
        new, kept = cell.step(projected.astype(jnp.float32), inner, state)
        new = tuple(jnp.where(valid, a, b) for a, b in zip(new, state, strict=True))
        return new, (new[0], (kept, state) if keep else None)

    last, (h, kept) = lax.scan(position, state, (projected, valid), reverse=backwards)
    return (h, last), (kept, kernel, valid)


def _backward(name: str, backwards: bool, saved: Any, gradient: Any) -> Any:
    (kept, states), kernel, valid = saved
    by_h, by_last = gradient
    cell, turned = CELLS[name], kernel.T

    def position(by: State, given: Any) -> tuple[State, jax.Array]:
        by_h, kept, state, valid = given
        by = (by[0] + by_h, *by[1:])
        by_gates, by_state = cell.back(kept, state, tuple(jnp.where(valid, a, 0) for a in by))
        by = tuple(jnp.where(valid, a, b) for a, b in zip(by_state, by, strict=True))
        by_inner = cell.part(by_gates)[1].astype(kernel.dtype)
        return (by[0] + _product(by_inner, turned), *by[1:]), by_gates

    given = by_h, kept, states, valid
    by_state, by_gates = lax.scan(position, by_last, given, reverse=not backwards)
    by_projected, by_inner = cell.part(by_gates)
    by_kernel = jnp.tensordot(states[0], by_inner, ((0, 1), (0, 1)))
    by_bias = jnp.sum(by_inner, axis=(0, 1))
    return (
        by_projected.astype(kernel.dtype),
        by_kernel.astype(kernel.dtype),
        by_bias,
        by_state,
        None,
    )


run.defjvp(custom_jvp.jvp(_forward, _backward))


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return lax.dot_general(a, b, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
