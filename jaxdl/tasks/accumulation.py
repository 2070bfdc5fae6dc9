"""Gradient accumulation: a batch in equal parts, one after the other, before one update."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.distributed import sharding
from jaxdl.metrics import Metrics
from jaxdl.task import Batch, Key


def accumulate_gradients(differentiate: sharding.Gradient, parts: int) -> sharding.Gradient:
    """The sum of the gradients of a batch's parts, the model's state after all, and all metrics."""

    def whole(params: Any, model_state: Any, batch: Batch, key: Key, examples: jax.Array) -> Any:
        # Every device has its share of each part: example i is in part i % parts.
        split = jax.tree.map(lambda a: a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1), batch)

        def one(
            now: tuple[Any, Any], given: tuple[Batch, jax.Array]
        ) -> tuple[tuple[Any, Any], Metrics]:
            part, number = given
            gradient, model_state = now
            more, (model_state, found) = differentiate(
                params, model_state, part, jax.random.fold_in(key, number), examples
            )
            return (jax.tree.map(jnp.add, gradient, more), model_state), found

        start = jax.tree.map(jnp.zeros_like, params), model_state
        (gradient, model_state), found = jax.lax.scan(one, start, (split, jnp.arange(parts)))
        return gradient, (model_state, jax.tree.map(lambda a: jnp.sum(a, axis=0), found))

    return whole
