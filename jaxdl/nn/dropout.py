"""Dropout (Srivastava et al., 2014) in less than half of `nn.Dropout`'s time on a CPU.

JAX makes 32 random bits for each entry, in the gradient once more. Here two entries share them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.optim import Rate, is_static

LEVELS = 1 << 16  # that the rate is rounded to


class Dropout(nn.Module):
    """Zeroes entries of x [B, ...] at random, and scales the others so that the mean stays.

    It has `nn.Dropout`'s interface, without its shared axes.

    Attributes:
      rate: share of zeroes, from 0 to 1, rounded to a multiple of 1/65536; may be traced.
      deterministic: gives x back; may be said in the call instead.
    """

    rate: Rate
    deterministic: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool | None = None) -> jax.Array:
        """Draws from the key `dropout`.

        Raises:
          ValueError: `deterministic` is said nowhere, or twice.
        """
        deterministic = nn.merge_param("deterministic", self.deterministic, deterministic)
        if deterministic or is_static(self.rate, 0):
            return x
        dropped = jnp.round(jnp.float32(self.rate) * LEVELS)
        keep = at_random(self.make_rng("dropout"), x.shape) >= dropped.astype(jnp.uint32)
        scale = (LEVELS / jnp.maximum(LEVELS - dropped, 1)).astype(x.dtype)
        return jnp.where(keep, x * scale, jnp.zeros((), x.dtype))


class StochasticDepth(nn.Module):
    """Zeroes whole examples of x [B, ...] at random (Huang et al., 2016).

    The others are scaled so that the mean stays.

    Attributes:
      rate: share of zeroes, from 0 to 1; may be traced.
      deterministic: gives x back.
    """

    rate: Rate
    deterministic: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Draws from the key `dropout`."""
        if self.deterministic or is_static(self.rate, 0):
            return x
        kept = 1 - jnp.float32(self.rate)
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        keep = jax.random.bernoulli(self.make_rng("dropout"), kept, shape)
        scale = (1 / jnp.maximum(kept, jnp.finfo(jnp.float32).tiny)).astype(x.dtype)
        return jnp.where(keep, x * scale, jnp.zeros((), x.dtype))


def at_random(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Independent numbers from 0 to 65535: uint32 of a shape of one axis or more."""
    # Along the axis after the examples': devices then share out the work, and the last axis, which
    # a CPU has in its vectors, is as long as it was.
    axis = min(1, len(shape) - 1)
    half = [-(-size // 2) if n == axis else size for n, size in enumerate(shape)]
    bits = jax.random.bits(key, half, jnp.uint32)
    both = jnp.concatenate([bits & (LEVELS - 1), bits >> 16], axis)
    return jax.lax.slice_in_dim(both, 0, shape[axis], axis=axis)
