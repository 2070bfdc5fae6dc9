"""A recurrent layer over all positions, with a hand-written gradient.

Only the product of the state with the recurrent kernel is computed position by position, in a scan.
The gradient with respect to the recurrent kernel is one product after the backward scan. JAX's own
gradient of a scan would accumulate it step by step.

On a CPU that has oneDNN, the scans of an LSTM are its handlers, see `jaxdl.nn.onednn_lstm`.

Shapes: B examples of T positions; F features of a state; G gates of a cell.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.nn import custom_jvp, local_form, onednn_lstm
from jaxdl.nn.cells import CELLS, State


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
    """Scans one layer over all positions, differentiable to all orders.

    Args:
      name: name of the cell, one of `CELLS`.
      backwards: whether to run from the last position to the first.
      projected: contribution of the inputs to the gates, with its bias, [T, B, G * F].
      kernel: recurrent kernel [F, G * F].
      bias: bias of the contribution of h to the gates, [G * F].
      state: initial state, [B, F] each.
      valid: bool [T, B, 1]; where False, the state stays unchanged.

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
    """Result of `run`, and the values that `_backward` needs, saved at each position if `keep`."""
    form = lstm.bind if name == "lstm" else functools.partial(_scan, name)
    results = form(projected, kernel, bias, valid, *state, backwards=backwards, keep=keep)
    count = len(state)
    h, last, saved = results[0], tuple(results[1 : 1 + count]), tuple(results[1 + count :])
    return (h, last), (state, h, saved, kernel, valid)


def _backward(name: str, backwards: bool, residuals: Any, gradient: Any) -> Any:
    """Gradient of `run`: a scan in the other direction, then one product for the kernel.

    `by_a` is the gradient of the loss with respect to `a`.
    """
    first, h, saved, kernel, valid = residuals
    by_h, by_last = gradient
    form = lstm_back.bind if name == "lstm" else functools.partial(_scan_back, name)
    operands = *first, h, *saved, kernel, valid, by_h, *by_last
    by_gates, *by_state = form(*operands, backwards=backwards)
    by_projected, by_inner = CELLS[name].part(by_gates)
    by_kernel = jnp.tensordot(_before(first[0], h, backwards), by_inner, ((0, 1), (0, 1)))
    by_bias = jnp.sum(by_inner, axis=(0, 1))
    return (
        by_projected.astype(kernel.dtype),
        by_kernel.astype(kernel.dtype),
        by_bias,
        tuple(by_state),
        None,
    )


run.defjvp(custom_jvp.jvp(_forward, _backward))


def _scan(
    name: str,
    projected: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    valid: jax.Array,
    *state: jax.Array,
    backwards: bool,
    keep: bool,
) -> list[jax.Array]:
    """Implements `_forward`.

    Returns:
      h at each position, the last state, and if `keep` the rest of the state at each position and
      the values that the cell saves.
    """
    cell = CELLS[name]

    def position(state: State, inputs: Any) -> tuple[State, Any]:
        projected, valid = inputs
        inner = _product(state[0].astype(kernel.dtype), kernel) + bias[None]
        new, saved = cell.step(projected.astype(jnp.float32), inner, state)
        new = tuple(jnp.where(valid, a, b) for a, b in zip(new, state, strict=True))
        return new, (new[0], (*new[1:], *saved) if keep else ())

    last, (h, saved) = lax.scan(position, state, (projected, valid), reverse=backwards)
    return [h, *last, *saved]


def _scan_back(name: str, *operands: jax.Array, backwards: bool) -> list[jax.Array]:
    """Implements `_backward` but for the sums over positions.

    Args:
      name: name of the cell.
      operands: the state before the first position, h and what `_scan` keeps at each position, the
        kernel, `valid`, and the gradients by h and by the last state.
      backwards: as in `run`.

    Returns:
      Gradients of the gates at each position and of the first state.
    """
    cell, count = CELLS[name], CELLS[name].states
    first, operands = operands[:count], operands[count:]
    states, operands = operands[:count], operands[count:]
    *saved, kernel, valid, by_h = operands[:-count]
    before = [_before(*pair, backwards) for pair in zip(first, states, strict=True)]
    transposed = kernel.T

    def position(by: State, inputs: Any) -> tuple[State, jax.Array]:
        by_h, saved, state, new, valid = inputs
        by = (by[0] + by_h, *by[1:])
        by_new = tuple(jnp.where(valid, a, 0) for a in by)
        by_gates, by_state = cell.back(tuple(saved), tuple(state), tuple(new), by_new)
        by = tuple(jnp.where(valid, a, b) for a, b in zip(by_state, by, strict=True))
        by_inner = cell.part(by_gates)[1].astype(kernel.dtype)
        return (by[0] + _product(by_inner, transposed), *by[1:]), by_gates

    inputs = by_h, saved, before, states, valid
    by_first, by_gates = lax.scan(position, operands[-count:], inputs, reverse=not backwards)
    return [by_gates, *by_first]


def _before(first: jax.Array, states: jax.Array, backwards: bool) -> jax.Array:
    """States before each position, from the first one and those after each position, [T, B, F]."""
    pair = (states[1:], first[None]) if backwards else (first[None], states[:-1])
    return jnp.concatenate(pair)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """[M, K] @ [K, L], accumulated and returned in float32."""
    return lax.dot_general(a, b, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)


# LSTM layers have another form on a CPU, by oneDNN.


def _lstm_here(*operands: jax.Array, backwards: bool, keep: bool) -> list[jax.Array]:
    _, kernel, _, valid, *_ = operands
    if not onednn_lstm.is_available(kernel, valid):
        return _scan("lstm", *operands, backwards=backwards, keep=keep)
    h, c, gates = onednn_lstm.forward(*operands, backwards=backwards, keep=keep)
    last = 0 if backwards else -1
    return [h, h[last], c[last], *((c, gates) if keep else ())]


def _lstm_back_here(*operands: jax.Array, backwards: bool) -> list[jax.Array]:
    _, first_c, _, c, gates, kernel, valid, *by = operands
    if not onednn_lstm.is_available(kernel, valid):
        return _scan_back("lstm", *operands, backwards=backwards)
    return onednn_lstm.backward(gates, c, first_c, valid, kernel, *by, backwards=backwards)


lstm = local_form.primitive("lstm", functools.partial(_scan, "lstm"), _lstm_here)
lstm_back = local_form.primitive(
    "lstm_back", functools.partial(_scan_back, "lstm"), _lstm_back_here
)
