"""LSTM layers on a CPU by oneDNN's products, where `jaxdl.nn.onednn` has it.

XLA computes a scan position by position: at each its threads meet for the product and again for the
gates, so a second core hardly helps. The handlers in onednn_lstm.cc give each thread some examples
and take them through all positions, with the kernel packed once.

Shapes: B examples of T positions; F features of a state.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.nn import onednn


def is_available(kernel: Any, valid: Any) -> bool:
    """Checks that the handlers can compute a layer.

    Args:
      kernel: recurrent kernel [F, 4 * F], or its shape and dtype.
      valid: [T, B, 1], or its shape.
    """
    engine = onednn.current()
    if not isinstance(engine, onednn.Engine) or 0 in (*kernel.shape, *valid.shape):
        return False
    return bool(
        kernel.dtype == jnp.float32 or (kernel.dtype == jnp.bfloat16 and engine.has_bfloat16)
    )


def forward(
    projected: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    valid: jax.Array,
    h: jax.Array,
    c: jax.Array,
    *,
    backwards: bool,
    keep: bool,
) -> list[jax.Array]:
    """Computes the layer.

    Args:
      projected: contribution of the inputs to the gates, [T, B, 4 * F].
      kernel: recurrent kernel [F, 4 * F], of the dtype of `projected`.
      bias: bias of the contribution of h to the gates, [4 * F].
      valid: bool [T, B, 1]; where False, the state stays unchanged.
      h: first h, [B, F].
      c: first c, [B, F].
      backwards: whether to run from the last position to the first.
      keep: whether to return the gates.

    Returns:
      h and c at all positions, [T, B, F] each, and the gates [T, B, 4 * F], empty unless `keep`.
    """
    states = jax.ShapeDtypeStruct((*valid.shape[:2], h.shape[-1]), jnp.float32)
    gates = jax.ShapeDtypeStruct(projected.shape if keep else (0,), jnp.float32)
    call = jax.ffi.ffi_call(onednn.LSTM, (states, states, gates))
    return list(call(projected, kernel, bias, h, c, valid, backwards=backwards))


def backward(
    gates: jax.Array,
    c: jax.Array,
    first_c: jax.Array,
    valid: jax.Array,
    kernel: jax.Array,
    by_h: jax.Array,
    by_last_h: jax.Array,
    by_last_c: jax.Array,
    *,
    backwards: bool,
) -> list[jax.Array]:
    """Computes the gradient of the layer, but for the sums over positions.

    Args:
      gates: result of `forward`, [T, B, 4 * F].
      c: result of `forward`, [T, B, F].
      first_c: c before the first position, [B, F].
      valid: bool [T, B, 1].
      kernel: recurrent kernel [F, 4 * F].
      by_h: gradient with respect to h at all positions, [T, B, F].
      by_last_h: gradient with respect to the last h, [B, F].
      by_last_c: gradient with respect to the last c, [B, F].
      backwards: as in `forward`.

    Returns:
      Gradients of the gates' sums [T, B, 4 * F], and of the first h and c, [B, F] each.
    """
    state = jax.ShapeDtypeStruct(first_c.shape, jnp.float32)
    results = (jax.ShapeDtypeStruct(gates.shape, jnp.float32), state, state)
    call = jax.ffi.ffi_call(onednn.LSTM_BACKWARD, results)
    operands = gates, c, first_c, valid, kernel, by_h, by_last_h, by_last_c
    return list(call(*operands, backwards=backwards))
