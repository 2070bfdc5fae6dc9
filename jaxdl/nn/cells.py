"""Recurrent cells and their derivatives.

Elman (1990), LSTM (Gers et al., 2000), GRU (Cho et al., 2014).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
