"""Overhead of the training loop: step time of a run compared with a bare loop over a jitted step.

    python -m experiments.benchmarks.host_overhead

The cases are softmax regression on batches of 16 digits, whose step is about as short as a step can
be, and VGG-16. Both sides of a case run in one process, in turns. The time includes logging, but
not evaluation and saving, whose cost depends on the task and not on the loop. The step of the bare
loop does not add up metrics and does not check for nonfinite values.
"""

import dataclasses
import functools
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments import cifar_vgg
from experiments.benchmarks import pair, performance
from jaxdl import augment, cli, losses, optim, schedules
from jaxdl.config import RunConfig, flag
from jaxdl.data import batches, images
from jaxdl.data.spec import DataSpec
from jaxdl.distributed import sharding
from jaxdl.task import Build, State, Task
from jaxdl.tasks.supervised import Model, accuracy_metrics, supervised
from jaxdl.train import loop

COMMAND = "python -m experiments.benchmarks.host_overhead"


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Number of turns and the folder of the figures."""

    turns: int = flag(7, "number of times that each side is timed", low=2)
    results: str = flag(performance.KEPT, "folder of the files of figures", runtime=True)


class SoftmaxRegression:
    """Softmax regression: [B, H, W, C] -> logits [B, 10]; has a model's `init` and `apply`."""

    def init(self, rngs: Any, x: jax.Array, *, train: bool) -> Any:
        """Returns zero parameters."""
        del rngs, train
        return {"params": {"kernel": jnp.zeros((x[0].size, 10)), "bias": jnp.zeros((1, 10))}}

    def apply(self, variables: Any, x: jax.Array, **kwargs: Any) -> Any:
        """Returns logits; in training also the new model state, which is empty."""
        params = variables["params"]
        logits = x.reshape(x.shape[0], -1) @ params["kernel"] + params["bias"]
        return (logits, {}) if kwargs["train"] else logits


def softmax(config: RunConfig, spec: DataSpec, model: Model | None = None) -> Task:
    """Task of softmax regression, or of another `model`, with plain SGD."""
    mean, std = spec.statistics()
    return supervised(
        model or SoftmaxRegression(),
        optim.optimizer(
            "sgd", config.learning_rate, schedules.schedule("constant", config.num_steps, 0)
        ),
        loss=lambda logits, batch: losses.cross_entropy(logits, batch["label"]),
        metrics_fn=accuracy_metrics,
        example=spec.example(),
        preprocess=lambda b: b | {"image": augment.normalize(b["image"], mean, std)},
    )


def times(
    config: RunConfig, build: Build, data: batches.Dataset, turns: int
) -> list[tuple[float, float]]:
    """Times a run and a bare loop in turns.

    Args:
      config: the run's config.
      build: builds the task.
      data: the data set to train on.
      turns: the number of times that each side is timed.

    Returns:
      A pair for each turn: the seconds per step of the run, and of the bare loop.
    """
    task, key = build(config, data.spec), jax.random.key(0)
    replicated = sharding.replicated(sharding.mesh(config))
    rows = batches.epoch_order(key, 0, data.spec.num_train, config.batch_size)
    split, order = jax.device_put((data.train, rows), replicated)
    per_epoch = config.steps_per_epoch(data.spec.num_train)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: State, split: batches.Split, order: jax.Array) -> State:
        batch = batches.take(split, order, state.step % per_epoch, config.batch_size)
        return task.step(state, batch)[0]

    start = jax.jit(task.init, out_shardings=replicated)

    def bare() -> float:
        state = jax.block_until_ready(step(start(key), split, order))
        began = time.monotonic()
        for _ in range(config.num_steps):
            state = step(state, split, order)
        jax.block_until_ready(state)
        return (time.monotonic() - began) / config.num_steps

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            run_config = dataclasses.replace(
                config,
                workdir=str(Path(folder) / "run"),
                eval_every=config.num_steps,
                checkpoint_every=config.num_steps,
            )
            return config.batch_size / loop.train(run_config, build, data)["examples_per_second"]

    ours()  # compiles; not counted
    return [(ours(), bare()) for _ in range(turns)]


def run(config: Config) -> dict[str, Any]:
    """Times both cases; returns the median ratio of each."""
    origin = performance.origin(Path(config.results))
    digits = images.load("embedded", image_size=8)
    tiny = RunConfig(batch_size=16, num_steps=5000)
    vgg = cifar_vgg.Config(dataset="synthetic", batch_size=64, num_steps=10)
    noise = cifar_vgg.load(vgg)
    times_by_case = {
        "a step of softmax regression, 16 digits": times(tiny, softmax, digits, config.turns),
        "a step of VGG-16, 64 images": times(vgg, cifar_vgg.build, noise, config.turns),
    }
    return {
        case: performance.save_cost(
            Path(config.results),
            case,
            pair.ratios(*zip(*seconds, strict=True)),
            "times a bare loop's",
            COMMAND,
            origin,
        )
        for case, seconds in times_by_case.items()
    }


if __name__ == "__main__":
    cli.main(run, Config)
