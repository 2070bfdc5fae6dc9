"""Optimizers as one optax chain: clip, direction, decoupled weight decay on kernels, rate."""

from collections.abc import Callable
from functools import partial

import jax
import optax

Rate = float | jax.Array


def kernels(params: optax.Params) -> optax.Params:
    """A mask over `params`: true for leaves named `kernel`, false for biases and norm scales."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) == "kernel", params
    )


# From a flag's value to momentum -> direction of descent (before decay and rate).
OPTIMIZERS: dict[str, Callable[[Rate], optax.GradientTransformation]] = {
    "sgd": lambda momentum: optax.identity(),
    "momentum": lambda momentum: optax.trace(momentum),
    "nesterov": partial(optax.trace, nesterov=True),
    "adamw": lambda momentum: optax.scale_by_adam(b1=momentum),
}


def optimizer(
    name: str,
    learning_rate: Rate,
    schedule: optax.Schedule,
    *,
    momentum: Rate = 0.9,
    weight_decay: Rate = 0.0,
    clip_norm: Rate = float("inf"),
) -> optax.GradientTransformation:
    """The optimizer of that name in `OPTIMIZERS`; every number may be a traced array.

    Args:
      name: a key of `OPTIMIZERS`.
      learning_rate: peak rate.
      schedule: step -> factor of the peak rate, see `schedules`.
      momentum: of SGD; for adamw the decay of its first moment.
      weight_decay: each step takes `rate * weight_decay` of every kernel away, apart from the
        gradient (Loshchilov & Hutter, 2019). Under SGD with momentum m, an L2 penalty of w does
        about as much as a decoupled decay of w / (1 - m).
      clip_norm: gradients of a greater global norm are scaled down to it; inf clips nothing.
    """
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        OPTIMIZERS[name](momentum),
        optax.add_decayed_weights(weight_decay, mask=kernels),
        optax.scale_by_learning_rate(lambda count: learning_rate * schedule(count)),
    )
