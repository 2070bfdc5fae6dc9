"""Dropout (Srivastava et al., 2014), in less than half the time of `nn.Dropout` on a CPU.

JAX draws 32 random bits for each entry, and does so again in the gradient. Here two entries share
them, 16 bits each.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.hyperparameters import Rate, is_static

LEVELS = 1 << 16  # the dropout rate is rounded to a multiple of 1 / LEVELS


class Dropout(nn.Module):
    """Zeroes random entries of x [B, ...] and scales the others, so that the mean is unchanged.

    The interface is that of `nn.Dropout`, without `broadcast_dims`.

    Attributes:
      rate: probability that an entry is zeroed, 0 to 1, rounded to a multiple of 1/65536; may be
        traced.
      deterministic: whether to return `x` unchanged; may be passed to the call instead.
    """

    rate: Rate
    deterministic: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool | None = None) -> jax.Array:
        """Applies dropout with the random key `dropout`.

        Raises:
          ValueError: `deterministic` is given neither here nor as an attribute, or in both places.
        """
        deterministic = nn.merge_param("deterministic", self.deterministic, deterministic)
        if deterministic or is_static(self.rate, 0):
            return x
        return drop(self.make_rng("dropout"), x, self.rate)


def drop(key: jax.Array, x: jax.Array, rate: Rate) -> jax.Array:
    """Zeroes random entries of x [B, ...] and scales the others, see `Dropout`.

    Args:
      key: PRNG key.
      x: array with at least one axis.
      rate: probability that an entry is zeroed, 0 to 1; may be traced.
    """
    if is_static(rate, 0):
        return x
    dropped = jnp.round(jnp.float32(rate) * LEVELS)
    keep = random_uint16(key, x.shape) >= dropped.astype(jnp.uint32)
    scale = (LEVELS / jnp.maximum(LEVELS - dropped, 1)).astype(x.dtype)
    return jnp.where(keep, x * scale, jnp.zeros((), x.dtype))


class StochasticDepth(nn.Module):
    """Stochastic depth (Huang et al., 2016): zeroes whole examples of a residual branch x [B, ...].

    The other examples are scaled, so that the mean is unchanged.

    Attributes:
      rate: probability that an example is zeroed, 0 to 1; may be traced.
      deterministic: whether to return `x` unchanged.
    """

    rate: Rate
    deterministic: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Zeroes examples with the random key `dropout`."""
        if self.deterministic or is_static(self.rate, 0):
            return x
        keep_rate = 1 - jnp.float32(self.rate)
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        keep = jax.random.bernoulli(self.make_rng("dropout"), keep_rate, shape)
        scale = (1 / jnp.maximum(keep_rate, jnp.finfo(jnp.float32).tiny)).astype(x.dtype)
        return jnp.where(keep, x * scale, jnp.zeros((), x.dtype))


def random_uint16(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Independent uniform integers of 16 bits, 0 to 65535, as uint32.

    Args:
      key: PRNG key.
      shape: shape of the result, at least one axis.
    """
    # Two entries share 32 bits along the axis after the examples'. Devices can then still share the
    # examples, and the last axis, along which a CPU vectorises, keeps its length.
    axis = min(1, len(shape) - 1)
    half = [-(-size // 2) if n == axis else size for n, size in enumerate(shape)]
    bits = jax.random.bits(key, half, jnp.uint32)
    both = jnp.concatenate([bits & (LEVELS - 1), bits >> 16], axis)
    return jax.lax.slice_in_dim(both, 0, shape[axis], axis=axis)
