"""Gradient accumulation over equal parts of a batch."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdl.distributed import sharding
from jaxdl.metrics import Metrics
from jaxdl.task import Batch, Key


def accumulate_gradients(differentiate: sharding.Gradient, parts: int) -> sharding.Gradient:
    """Accumulates the gradient over the parts of a batch, one after the other in memory.

    Args:
      differentiate: gradient function of one part.
      parts: number of parts; it divides the batch size.

    Returns:
      A gradient function of the whole batch: the sum of the gradients, with the model state after
      the last part and the sum of the metrics.
    """

    def accumulated(
        params: optax.Params, model_state: Any, batch: Batch, key: Key, examples: jax.Array
    ) -> Any:
        # Example i is in part i % parts, so that every device has its share of each part.
        split = jax.tree.map(lambda a: a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1), batch)

        def add_part(
            carry: tuple[optax.Updates, Any], inputs: tuple[Batch, jax.Array]
        ) -> tuple[tuple[optax.Updates, Any], Metrics]:
            part, number = inputs
            total, model_state = carry
            gradient, (model_state, metrics) = differentiate(
                params, model_state, part, jax.random.fold_in(key, number), examples
            )
            return (jax.tree.map(jnp.add, total, gradient), model_state), metrics

        start = jax.tree.map(jnp.zeros_like, params), model_state
        (gradient, model_state), metrics = jax.lax.scan(add_part, start, (split, jnp.arange(parts)))
        return gradient, (model_state, jax.tree.map(lambda a: jnp.sum(a, axis=0), metrics))

    return accumulated
