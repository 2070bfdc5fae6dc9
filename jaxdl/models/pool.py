"""Pooling over windows of an image. Shapes: B images of H by W with C channels."""

import jax
import jax.numpy as jnp


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """The largest of each 2x2 window, stride 2: [B, H, W, C] -> [B, H // 2, W // 2, C].

    An odd last row or column is dropped, as `nn.max_pool` does. Written as maxima of strided
    slices, whose gradient runs on a CPU some 10 times faster than that of XLA's window reduction;
    where the largest is not unique, the gradient is shared among equals.
    """
    _, H, W, _ = x.shape
    x = x[:, : H // 2 * 2, : W // 2 * 2]
    x = jnp.maximum(x[:, 0::2], x[:, 1::2])
    return jnp.maximum(x[:, :, 0::2], x[:, :, 1::2])
