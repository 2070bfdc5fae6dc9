"""Plain Flax's side of a benchmark: VGG-16 as a user of Flax writes it, with Flax's own layers.

    python -m experiments.benchmarks.flax_side SPEC

Trains on one batch, which is normalised beforehand and stays on the device, with a jitted step that
donates its state. There is no augmentation and there are no metrics. `beside_torch` starts this
process and writes SPEC.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import chex
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state
from jax.typing import DTypeLike

from experiments.benchmarks import pair
from jaxdl import cli

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions
WARM_UP = 2  # untimed turns; the first one compiles


class VGG16(nn.Module):
    """VGG-16 with batch normalisation: [B, 32, 32, 3] -> logits [B, 10]."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits."""
        for width, convolutions in STAGES:
            for _ in range(convolutions):
                x = nn.Conv(width, (3, 3), dtype=self.dtype)(x)
                x = nn.BatchNorm(not train, momentum=0.9, dtype=self.dtype)(x)
                x = nn.relu(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.Dropout(0.3, deterministic=not train)(x.reshape(x.shape[0], -1))
        return nn.Dense(10, dtype=self.dtype)(x).astype(jnp.float32)


class TrainState(train_state.TrainState):
    """Flax's train state, with running statistics."""

    batch_stats: chex.ArrayTree


def step(state: TrainState, x: jax.Array, y: jax.Array, key: jax.Array) -> TrainState:
    """One update on images x [B, 32, 32, 3] and labels y [B]."""

    def objective(params: optax.Params) -> tuple[jax.Array, chex.ArrayTree]:
        logits, updated = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            x,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(key, state.step)},
        )
        targets = optax.smooth_labels(jax.nn.one_hot(y, 10), 0.1)
        return optax.softmax_cross_entropy(logits, targets).mean(), updated["batch_stats"]

    gradient, batch_stats = jax.grad(objective, has_aux=True)(state.params)
    return state.apply_gradients(grads=gradient, batch_stats=batch_stats)


def side(spec: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], float]]:
    """Builds and warms up the side.

    Returns:
      The report, and a function that runs a turn and returns its seconds per step.
    """
    with np.load(spec["data"], allow_pickle=False) as arrays:
        x = jnp.asarray(arrays["image"][: spec["batch_size"]], jnp.float32)
        y = jnp.asarray(arrays["label"][: spec["batch_size"]])
    x = (x - x.mean()) / x.std()
    key = jax.random.key(0)
    model = VGG16(jnp.dtype(spec["dtype"]))
    variables = model.init(key, x, train=False)
    optimizer = optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9, nesterov=True)
    )
    state = TrainState.create(
        apply_fn=model.apply,
        params=variables["params"],
        tx=optimizer,
        batch_stats=variables["batch_stats"],
    )
    update = jax.jit(step, donate_argnums=0)

    def turn() -> float:
        nonlocal state
        began = time.perf_counter()
        for _ in range(spec["steps"]):
            state = update(state, x, y, key)
        jax.block_until_ready(state)
        return (time.perf_counter() - began) / spec["steps"]

    for _ in range(WARM_UP):
        turn()
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "backend": jax.default_backend(),
        "versions": {"flax": flax.__version__, "jax": jax.__version__},
    }, turn


if __name__ == "__main__":
    cli.set_up_jax()
    report, turn = side(json.loads(sys.argv[1]))
    pair.serve(report, turn=turn)
