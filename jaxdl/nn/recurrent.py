"""Recurrent networks: Elman's (1990), LSTM (Gers et al., 2000) and GRU (Cho et al., 2014).

Of a layer only the product of the state with the recurrent kernel is computed position by position.
The inputs of all positions are one product before, and the gradient by the recurrent kernel is one
product after.

Shapes: B examples of T positions with D features in; F features of a state; G gates of a cell.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxdl.errors import UserError
from jaxdl.nn import tangent
from jaxdl.nn.dense import Dense
from jaxdl.nn.dropout import Dropout
from jaxdl.nn.padding import inside

State = tuple[jax.Array, ...]  # [B, F] each, the first of them h, what a layer puts out


class Cell(NamedTuple):
    """One position of a recurrent layer; elementwise, but for the gates that stand side by side.

    What is expensive is computed once: `step` keeps the values of the activations, from which
    `back` has their derivatives.

    Attributes:
      gates: G, each with F columns of the kernels.
      states: arrays of a state.
      step: (what comes from the input, what comes from h, state) -> the next state, what is kept.
      back: (kept, state before, gradient by the next state) -> gradients by those three. Where the
        first two are alike, they are one array.
      inner_bias: the last gate's part of h has a bias of its own.
    """

    gates: int
    states: int
    step: Callable[[jax.Array, jax.Array, State], tuple[State, State]]
    back: Callable[[State, State, State], tuple[jax.Array, State]]
    part: Callable[[jax.Array], tuple[jax.Array, jax.Array]] = lambda a: (a, a)
    inner_bias: bool = False


# Gates stand side by side in one array throughout: a CPU then does each thing once, where with an
# array a gate XLA computed the same several times over.


def _activate(a: jax.Array, kinds: str) -> jax.Array:
    """Gates side by side [B, G * F], `s`: sigmoid, (1 + tanh(a / 2)) / 2, and `t`: tanh."""
    half = _columns(a, kinds, 0.5, 1.0)
    return half * jnp.tanh(half * a) + _columns(a, kinds, 0.5, 0.0)


def _slope(gates: jax.Array, kinds: str) -> jax.Array:
    """The derivative of `_activate` from its values: of sigmoid g - g * g, of tanh 1 - g * g."""
    squared = gates * gates
    return jnp.where(_columns(gates, kinds, True, False), gates, 1) - squared


def _columns(like: jax.Array, kinds: str, sigmoid: Any, tanh: Any) -> jax.Array:
    """One value for the columns of each sigmoid, another for those of each tanh: [1, G * F]."""
    values = np.array([sigmoid if kind == "s" else tanh for kind in kinds])
    dtype = None if values.dtype == bool else jnp.float32
    return jnp.asarray(np.repeat(values, like.shape[-1] // len(kinds))[None], dtype)


def _elman(x: jax.Array, inner: jax.Array, state: State) -> tuple[State, State]:
    del state
    h = jnp.tanh(x + inner)
    return (h,), (h,)


def _elman_back(kept: State, state: State, by: State) -> tuple[jax.Array, State]:
    return by[0] * (1 - kept[0] ** 2), (jnp.zeros_like(state[0]),)


def _lstm(x: jax.Array, inner: jax.Array, state: State) -> tuple[State, State]:
    gates = _activate(x + inner, "ssts")
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = f * state[1] + i * g
    squashed = jnp.tanh(c)
    return (o * squashed, c), (gates, squashed)


def _lstm_back(kept: State, state: State, by: State) -> tuple[jax.Array, State]:
    gates, squashed = kept
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    by_c = by[1] + by[0] * o * (1 - squashed**2)
    outer = jnp.concatenate((by_c, by_c, by_c, by[0]), axis=-1)
    others = jnp.concatenate((g, state[1], i, squashed), axis=-1)
    return outer * others * _slope(gates, "ssts"), (jnp.zeros_like(by_c), by_c * f)


def _gru(x: jax.Array, inner: jax.Array, state: State) -> tuple[State, State]:
    F = state[0].shape[-1]
    gates = _activate(x[:, : 2 * F] + inner[:, : 2 * F], "ss")
    r, z = jnp.split(gates, 2, axis=-1)
    m = inner[:, 2 * F :]
    n = jnp.tanh(x[:, 2 * F :] + r * m)
    return (n + z * (state[0] - n),), (gates, n, m)


def _gru_back(kept: State, state: State, by: State) -> tuple[jax.Array, State]:
    gates, n, m = kept
    r, z = jnp.split(gates, 2, axis=-1)
    by_n = by[0] * (1 - z) * (1 - n * n)
    by_gates = jnp.concatenate((by_n * m, by[0] * (state[0] - n)), -1) * _slope(gates, "ss")
    return jnp.concatenate((by_gates, by_n, by_n * r), axis=-1), (by[0] * z,)


def _part_gru(by: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Parts r, z, n of the input, n of h."""
    F = by.shape[-1] // 4
    return by[..., : 3 * F], jnp.concatenate((by[..., : 2 * F], by[..., 3 * F :]), axis=-1)


CELLS = {
    "rnn": Cell(1, 1, _elman, _elman_back),
    "lstm": Cell(4, 2, _lstm, _lstm_back),
    "gru": Cell(3, 1, _gru, _gru_back, _part_gru, inner_bias=True),
}


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


run.defjvp(tangent.jvp(_forward, _backward))


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return lax.dot_general(a, b, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
