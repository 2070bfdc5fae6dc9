"""Dense layers that add up in float32 on a CPU, where bfloat16 is slow.

Shapes: D features in, F features out, `...` any axes before.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Dimensions = tuple[tuple[Any, Any], tuple[Any, Any]]  # contracted and batch axes of both operands


def general(
    a: jax.Array,
    b: jax.Array,
    dimensions: Dimensions,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> jax.Array:
    """`lax.dot_general`, but on a CPU products of bfloat16 are computed in float32.

    The result is rounded to the operands' type either way, unless another is asked for.
    """
    if a.dtype != jnp.bfloat16 or b.dtype != jnp.bfloat16:
        return lax.dot_general(a, b, dimensions, precision, preferred_element_type)
    wanted = preferred_element_type or jnp.bfloat16

    def plain(a: jax.Array, b: jax.Array) -> jax.Array:
        return lax.dot_general(a, b, dimensions, precision, wanted)

    def on_cpu(a: jax.Array, b: jax.Array) -> jax.Array:
        # Widened beforehand: of bfloat16 itself some contractions do not exist there at all.
        wide = lax.dot_general(a.astype(jnp.float32), b.astype(jnp.float32), dimensions, precision)
        return wide.astype(wanted)

    return lax.platform_dependent(a, b, cpu=on_cpu, default=plain)


def promote(x: jax.Array, kernel: jax.Array, bias: Any, *, dtype: Any, **_: Any) -> Any:
    """As Flax does, but for the bias: a CPU adds up the bfloat16 gradients of one very slowly."""
    return *nn.dtypes.promote_dtype(x, kernel, dtype=dtype), bias


class Dense(nn.Dense):
    """`nn.Dense` in interface, parameters, initialisation and result, to rounding: only faster.

    Checkpoints of one are those of the other.
    """

    promote_dtype: Callable[..., Any] = promote
    dot_general: Callable[..., Any] = general

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [..., D] -> [..., F]."""
        dtype = self.dtype or jnp.promote_types(x.dtype, self.param_dtype)
        return super().__call__(x).astype(dtype)
