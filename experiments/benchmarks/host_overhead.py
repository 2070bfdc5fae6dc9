"""What the loop costs a tiny model: steps a second beside a bare loop over the jitted step.

    python -m experiments.benchmarks.host_overhead

Softmax regression on digits, whose step is about as short as a step can be. Both sides run in one
process, in turns; the figure is the median of the turns' ratios. Logging is counted, evaluation
and saving are not: their cost is the task's, not the loop's.
"""

import dataclasses
import functools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl import augment, cli, loop, losses, optim, parallel, schedules
from jaxdl.config import RunConfig, flag
from jaxdl.data import batches, images
from jaxdl.program import compile_program
from jaxdl.supervised import classification, supervised
from jaxdl.task import Task


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """A run of one log interval after another, evaluated and saved once, at its end."""

    batch_size: int = flag(16, "examples an update", low=1)
    num_steps: int = flag(5000, "updates of a turn", low=100)
    turns: int = flag(7, "times that each side is timed", low=1)


class SoftmaxRegression:
    """[B, H, W, C] -> logits [B, 10], as the two functions that a task asks of a model."""

    def init(self, rngs: Any, x: jax.Array, *, train: bool) -> Any:
        """Returns zero parameters."""
        del rngs, train
        return {"params": {"kernel": jnp.zeros((x[0].size, 10)), "bias": jnp.zeros((1, 10))}}

    def apply(self, variables: Any, x: jax.Array, **kwargs: Any) -> Any:
        """Returns logits, and while training the (empty) new model state."""
        params = variables["params"]
        logits = x.reshape(x.shape[0], -1) @ params["kernel"] + params["bias"]
        return (logits, {}) if kwargs["train"] else logits


def build(config: Config, data: images.Images) -> Task:
    """Softmax regression with plain SGD."""
    mean, std = data.statistics()
    return supervised(
        SoftmaxRegression(),
        optim.optimizer(
            "sgd", config.learning_rate, schedules.schedule("constant", config.num_steps, 0)
        ),
        loss=lambda logits, batch: losses.cross_entropy(logits, batch["label"]),
        measure=classification,
        example={name: array[:1] for name, array in data.train.items()},
        preprocess=lambda b: b | {"image": augment.normalize(b["image"], mean, std)},
    )


def run(config: Config) -> dict[str, Any]:
    """Times both sides; returns the median ratio and its range."""
    data = images.load("embedded", image_size=8)
    task = build(config, data)
    mesh = parallel.data_mesh(config.batch_size)
    program = compile_program(task, config, data.train, mesh)
    split = jax.device_put(data.train, parallel.replicated(mesh))
    key = jax.random.key(0)
    order = program.order(key, 0)
    per_epoch = config.steps_per_epoch(batches.size(data.train))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, split: batches.Split, order: jax.Array) -> Any:
        batch = batches.take(split, order, state.step % per_epoch, config.batch_size)
        return task.step(state, batch)[0]

    def bare() -> float:
        state = jax.block_until_ready(step(program.start(key).state, split, order))
        began = time.monotonic()
        for _ in range(config.num_steps):
            state = step(state, split, order)
        jax.block_until_ready(state)
        return config.num_steps / (time.monotonic() - began)

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            own = dataclasses.replace(
                config,
                workdir=str(Path(folder) / "run"),
                eval_every=config.num_steps,
                checkpoint_every=config.num_steps,
            )
            return loop.train(own, task, data)["examples_per_second"] / config.batch_size

    pairs = [(ours(), bare()) for _ in range(config.turns)]
    ratios = [mine / theirs for mine, theirs in pairs]
    return {
        "steps_per_second": statistics.median(mine for mine, _ in pairs),
        "bare_steps_per_second": statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(ratios),
        "smallest_ratio": min(ratios),
        "largest_ratio": max(ratios),
        "device": jax.devices()[0].device_kind,
    }


if __name__ == "__main__":
    cli.main(run, Config)
