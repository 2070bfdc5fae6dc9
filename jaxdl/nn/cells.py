"""Recurrent cells with hand-written derivatives.

Elman (1990), LSTM (Gers et al., 2000) and GRU (Cho et al., 2014).

A cell is one time step, elementwise except for the matrix product with h, which the layer in
`jaxdl.nn.recurrence` computes. The step saves the values of the activations. Derivatives are
computed from these values, so nothing expensive is computed twice.

Names: `x` is the contribution of the input to the gates, `inner` that of h; `by` is the gradient of
the loss with respect to the next state, and `by_a` that with respect to `a`.

The gates are side by side in one array, G * F columns, in all of these functions. A CPU then does
each operation once. With one array per gate, XLA computed the same values several times.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

State = tuple[jax.Array, ...]  # [B, F] each; the first is h, the output of the layer


class Cell(NamedTuple):
    """One time step of a recurrent layer, and its derivative.

    Attributes:
      gates: G, number of gates, each with F columns of the kernels.
      states: number of arrays in a state.
      step: (x [B, G * F], inner [B, G * F], state) -> (next state, saved values).
      back: (saved values, state, next state, gradient of the next state) -> (gradient of the gates,
        gradient of the state apart from that through `inner`). A gate whose gradients by `x` and by
        `inner` are equal has one for both.
      part: gradient of the gates -> gradients of `x` and of `inner`.
      inner_bias: whether the last gate has a bias of its own in `inner`.
    """

    gates: int
    states: int
    step: Callable[[jax.Array, jax.Array, State], tuple[State, State]]
    back: Callable[[State, State, State, State], tuple[jax.Array, State]]
    part: Callable[[jax.Array], tuple[jax.Array, jax.Array]] = lambda a: (a, a)
    inner_bias: bool = False


def _activate(a: jax.Array, kinds: str) -> jax.Array:
    """Activates gates side by side [B, G * F]; one letter a gate, `s` sigmoid or `t` tanh.

    Both are computed by one tanh: sigmoid(a) = (1 + tanh(a / 2)) / 2.
    """
    half = _columns(a, kinds, 0.5, 1.0)
    return half * jnp.tanh(half * a) + _columns(a, kinds, 0.5, 0.0)


def _slope(gates: jax.Array, kinds: str) -> jax.Array:
    """Derivative of `_activate` from its values g: g - g * g of sigmoid, 1 - g * g of tanh."""
    squared = gates * gates
    return jnp.where(_columns(gates, kinds, True, False), gates, 1) - squared


def _columns(like: jax.Array, kinds: str, sigmoid: float, tanh: float) -> jax.Array:
    """Row [1, G * F] with one value in the columns of sigmoid gates, another in those of tanh."""
    values = np.array([sigmoid if kind == "s" else tanh for kind in kinds])
    dtype = None if values.dtype == bool else jnp.float32
    return jnp.asarray(np.repeat(values, like.shape[-1] // len(kinds))[None], dtype)


def _elman(x: jax.Array, inner: jax.Array, state: State) -> tuple[State, State]:
    del state
    return (jnp.tanh(x + inner),), ()


def _elman_back(saved: State, state: State, new: State, by: State) -> tuple[jax.Array, State]:
    del saved
    return by[0] * (1 - new[0] ** 2), (jnp.zeros_like(state[0]),)


def _lstm(x: jax.Array, inner: jax.Array, state: State) -> tuple[State, State]:
    gates = _activate(x + inner, "ssts")
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = f * state[1] + i * g
    return (o * jnp.tanh(c), c), (gates,)


def _lstm_back(saved: State, state: State, new: State, by: State) -> tuple[jax.Array, State]:
    (gates,), tanh_c = saved, jnp.tanh(new[1])
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    by_c = by[1] + by[0] * o * (1 - tanh_c**2)
    # Each gate's gradient: that of its product, times the other factor, times its own slope.
    by_products = jnp.concatenate((by_c, by_c, by_c, by[0]), axis=-1)
    factors = jnp.concatenate((g, state[1], i, tanh_c), axis=-1)
    return by_products * factors * _slope(gates, "ssts"), (jnp.zeros_like(by_c), by_c * f)


def _gru(x: jax.Array, inner: jax.Array, state: State) -> tuple[State, State]:
    F = state[0].shape[-1]
    gates = _activate(x[:, : 2 * F] + inner[:, : 2 * F], "ss")
    r, z = jnp.split(gates, 2, axis=-1)
    m = inner[:, 2 * F :]
    n = jnp.tanh(x[:, 2 * F :] + r * m)
    return (n + z * (state[0] - n),), (gates, n, m)


def _gru_back(saved: State, state: State, new: State, by: State) -> tuple[jax.Array, State]:
    del new
    gates, n, m = saved
    r, z = jnp.split(gates, 2, axis=-1)
    by_n = by[0] * (1 - z) * (1 - n * n)
    by_gates = jnp.concatenate((by_n * m, by[0] * (state[0] - n)), -1) * _slope(gates, "ss")
    return jnp.concatenate((by_gates, by_n, by_n * r), axis=-1), (by[0] * z,)


def _part_gru(by: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Splits gradients of r, z, n in `x` and n in `inner`: r and z have one for both."""
    F = by.shape[-1] // 4
    return by[..., : 3 * F], jnp.concatenate((by[..., : 2 * F], by[..., 3 * F :]), axis=-1)


CELLS = {
    "rnn": Cell(1, 1, _elman, _elman_back),
    "lstm": Cell(4, 2, _lstm, _lstm_back),
    "gru": Cell(3, 1, _gru, _gru_back, _part_gru, inner_bias=True),
}
