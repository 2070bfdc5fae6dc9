"""Regularizers: L1 and L2 penalties on kernels, and moving averages of parameters."""

import chex
import jax
import jax.numpy as jnp
import optax

from jaxdl.hyperparameters import Rate, is_static
from jaxdl.losses import abs_zero_grad
from jaxdl.optim import kernels


def l1(params: optax.Params, strength: Rate) -> jax.Array:
    """L1 penalty (Tibshirani, 1996): `strength` times the sum of |w| over all kernels.

    >>> float(l1({"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([5.0])}, 0.5))
    1.5
    """
    return strength * jnp.asarray(sum(jnp.sum(abs_zero_grad(w)) for w in _kernels(params)))


def l2(params: optax.Params, strength: Rate) -> jax.Array:
    """L2 penalty: `strength` / 2 times the sum of w**2 over all kernels.

    Its gradient is `strength` * w.

    >>> float(l2({"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([5.0])}, 2.0))
    5.0
    """
    return strength / 2 * jnp.asarray(sum(jnp.sum(jnp.square(w)) for w in _kernels(params)))


def elastic_net(params: optax.Params, absolute: Rate, squared: Rate) -> jax.Array:
    """Elastic net (Zou & Hastie, 2005): the sum of an L1 and an L2 penalty.

    Args:
      params: the model's parameters; only leaves named `kernel` count.
      absolute: strength of the L1 penalty. A constant 0 leaves it out of the program.
      squared: strength of the L2 penalty. A constant 0 leaves it out of the program.

    Returns:
      A scalar.
    """
    total = jnp.zeros(())
    if not is_static(absolute, 0):
        total = total + l1(params, absolute)
    if not is_static(squared, 0):
        total = total + l2(params, squared)
    return total


def moving_average(
    average: chex.ArrayTree, new: chex.ArrayTree, decay: Rate, step: jax.Array
) -> chex.ArrayTree:
    """Exponential moving average of a pytree.

    average + (1 - d) * (new - average), where d is the lesser of `decay` and
    (1 + step) / (10 + step): a smaller decay at the start forgets the random initial values.

    Args:
      average: the average so far.
      new: the new values, a pytree of the same structure.
      decay: decay of the average, in [0, 1).
      step: number of updates of the average so far.

    Returns:
      The updated average. Leaves that are not floating are taken from `new`.

    >>> moving_average({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}, 0.5, jnp.int32(90))
    {'w': Array([0.5, 0.5], dtype=float32)}
    """
    weight = 1 - jnp.minimum(decay, (1 + step) / (10 + step))

    def mix(old: jax.Array, new: jax.Array) -> jax.Array:
        if not jnp.issubdtype(new.dtype, jnp.floating):
            return new
        return (old + weight * (new - old)).astype(new.dtype)

    return jax.tree.map(mix, average, new)


def _kernels(params: optax.Params) -> list[jax.Array]:
    leaves, mask = jax.tree.leaves(params), jax.tree.leaves(kernels(params))
    return [leaf for leaf, is_kernel in zip(leaves, mask, strict=True) if is_kernel]
