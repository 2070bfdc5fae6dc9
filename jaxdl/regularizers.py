"""Penalties on the size of a model's kernels, and averages of all that it learns."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdl.losses import absolute
from jaxdl.optim import Rate, is_static, kernels


def l1(params: optax.Params, strength: Rate) -> jax.Array:
    """`strength` times the sum of |w| over all kernels (Tibshirani, 1996)."""
    return strength * jnp.asarray(sum(jnp.sum(absolute(w)) for w in _kernels(params)))


def l2(params: optax.Params, strength: Rate) -> jax.Array:
    """`strength` / 2 times the sum of w**2 over all kernels, whose gradient is `strength` * w."""
    return strength / 2 * jnp.asarray(sum(jnp.sum(jnp.square(w)) for w in _kernels(params)))


def elastic_net(params: optax.Params, absolute: Rate, squared: Rate) -> jax.Array:
    """`l1` of strength `absolute` and `l2` of strength `squared` together (Zou & Hastie, 2005)."""
    total = jnp.zeros(())
    if not is_static(absolute, 0):
        total = total + l1(params, absolute)
    if not is_static(squared, 0):
        total = total + l2(params, squared)
    return total


def moving_average(average: Any, new: Any, decay: Rate, step: jax.Array) -> Any:
    """Exponential moving average of a pytree's floating leaves; of the others, the new ones.

    average + (1 - d) * (new - average), with d the lesser of `decay` and (1 + step) / (10 + step):
    so a long average forgets in time the random values that it began with.
    """
    weight = 1 - jnp.minimum(decay, (1 + step) / (10 + step))

    def mix(old: jax.Array, new: jax.Array) -> jax.Array:
        if not jnp.issubdtype(new.dtype, jnp.floating):
            return new
        return (old + weight * (new - old)).astype(new.dtype)

    return jax.tree.map(mix, average, new)


def _kernels(params: optax.Params) -> list[jax.Array]:
    chosen = zip(jax.tree.leaves(params), jax.tree.leaves(kernels(params)), strict=True)
    return [leaf for leaf, is_kernel in chosen if is_kernel]
