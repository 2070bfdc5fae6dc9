"""Time to accuracy of `cifar_speedrun`: each training one program, compiled before, over seeds.

    python -m experiments.benchmarks.time_to_accuracy --trials=100 --target=0.94

Takes all flags of `experiments.cifar_speedrun`; --seed is the first trial's. The batches and the
steps are those of its runs. Timed are a training, from the key to the final parameters on the
device, and the evaluation on the test split; not timed are loading, the whitening, compiling and
the one trial before the first that counts. Runs on one device.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments import cifar_speedrun
from jaxdl import cli
from jaxdl.config import flag
from jaxdl.console import say
from jaxdl.data import batches
from jaxdl.distributed import sharding
from jaxdl.metrics import scalars
from jaxdl.task import State, Task
from jaxdl.train.evaluate import evaluate_split
from jaxdl.train.step_spec import operands, step_spec


@dataclasses.dataclass(frozen=True)
class Config(cifar_speedrun.Config):
    """A training, and how often it is timed."""

    trials: int = flag(10, "trainings that are timed, each with the next seed", low=1)
    target: float = flag(0.94, "accuracy of which the share that reaches it is told", high=1.0)


def training(task: Task, config: Config, examples: int) -> Callable[..., State]:
    """The whole of a training: (seed, training split) -> final state, as `loop.train` makes it."""
    per_epoch, total = config.steps_per_epoch(examples), config.total_steps(examples)

    def train(seed: jax.Array, split: batches.Split) -> State:
        state_key, data_key = jax.random.split(jax.random.key(seed))

        def epoch(number: jax.Array, state: State) -> State:
            order = batches.epoch_order(data_key, number, examples, config.batch_size)

            def step(position: jax.Array, state: State) -> State:
                return task.step(state, batches.take(split, order, position, config.batch_size))[0]

            steps = jnp.minimum(per_epoch, total - number * per_epoch)
            return jax.lax.fori_loop(0, steps, step, state)

        return jax.lax.fori_loop(0, -(-total // per_epoch), epoch, task.init(state_key))

    return train


def trial(config: Config, data: batches.Dataset) -> Callable[[int], tuple[float, float, float]]:
    """A training and an evaluation: seed -> test accuracy, and seconds of the two."""
    mesh = sharding.mesh(config, jax.devices()[:1])
    spec = step_spec(cifar_speedrun.build, config, data, mesh)
    numbers, task = operands(config, mesh), cifar_speedrun.build(config, data.spec)
    split = jax.device_put(data.train, sharding.replicated(mesh))
    train = jax.jit(training(task, config, data.spec.num_train))

    def once(seed: int) -> tuple[float, float, float]:
        began = time.monotonic()
        state = jax.block_until_ready(train(seed, split))
        trained = time.monotonic()
        accuracy = scalars(evaluate_split(spec, numbers, state, data.test))["accuracy"]
        return accuracy, trained - began, time.monotonic() - trained

    return once


def run(config: Config) -> dict[str, Any]:
    """Times the trials; returns mean and deviation of accuracy, and medians of seconds."""
    once = trial(config, cifar_speedrun.load(config))
    began = time.monotonic()
    once(config.seed)
    say(f"compiled, and trained once, after {time.monotonic() - began:.1f} s")
    trials = []
    for seed in range(config.seed, config.seed + config.trials):
        accuracy, trained, evaluated = once(seed)
        trials.append((accuracy, trained, evaluated))
        say(
            f"seed {seed}: {accuracy:.4f}, trained in {trained:.3f} s, evaluated in {evaluated:.3f}"
        )
    accuracies, training_seconds, evaluation_seconds = zip(*trials, strict=True)
    return {
        "test/accuracy": statistics.mean(accuracies),
        "test/accuracy_deviation": statistics.stdev(accuracies) if len(trials) > 1 else 0.0,
        "share_at_target": sum(a >= config.target for a in accuracies) / len(trials),
        "training_seconds": statistics.median(training_seconds),
        "evaluation_seconds": statistics.median(evaluation_seconds),
        "trials": len(trials),
    }


if __name__ == "__main__":
    cli.main(run, Config)
