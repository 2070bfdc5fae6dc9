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

FORWARD, BACKWARD = "jaxdl_lstm", "jaxdl_lstm_backward"  # names of the handlers in XLA's programs


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
    """The layer; see `jaxdl.nn.recurrence.run` for the arguments.

    Returns:
      h and c at all positions, [T, B, F] each, and the gates [T, B, 4 * F], empty unless `keep`.
    """
    states = jax.ShapeDtypeStruct((*valid.shape[:2], h.shape[-1]), jnp.float32)
    gates = jax.ShapeDtypeStruct(projected.shape if keep else (0,), jnp.float32)
    call = jax.ffi.ffi_call(FORWARD, (states, states, gates))
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
    """Gradient of the layer, from those by h at all positions and by the last h and c.

    Returns:
      Gradients of the gates' sums [T, B, 4 * F], and of the first h and c, [B, F] each.
    """
    state = jax.ShapeDtypeStruct(first_c.shape, jnp.float32)
    results = (jax.ShapeDtypeStruct(gates.shape, jnp.float32), state, state)
    call = jax.ffi.ffi_call(BACKWARD, results)
    operands = gates, c, first_c, valid, kernel, by_h, by_last_h, by_last_c
    return list(call(*operands, backwards=backwards))
