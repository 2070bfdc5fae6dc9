"""Time to accuracy of `cifar_speedrun` over many seeds, with each training as one program.

    python -m experiments.benchmarks.time_to_accuracy --trials=100 --target=0.94

Takes all flags of `experiments.cifar_speedrun`; --seed is that of the first trial. Batches and
steps are the same as in its runs. The time of a training reaches from the key to the final
parameters on the device; the evaluation on the test split is timed separately. Loading, whitening,
compiling and one warm-up trial are not timed. Runs on one device.
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
from jaxdl.train.step_spec import device_operands, step_spec


@dataclasses.dataclass(frozen=True)
class Config(cifar_speedrun.Config):
    """Config of `cifar_speedrun`, with the number of trials and a target accuracy."""

    trials: int = flag(10, "number of timed trainings, each with the next seed", low=1)
    target: float = flag(
        0.94, "test accuracy; the share of trials that reach it is reported", high=1.0
    )


def training(task: Task, config: Config, examples: int) -> Callable[..., State]:
    """Returns a function (seed, training split) -> final state, the same as that of `loop.train`.

    Args:
      task: the task to train.
      config: the run's config.
      examples: the number of training examples.
    """
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
    """Returns a function seed -> (test accuracy, training seconds, evaluation seconds)."""
    mesh = sharding.mesh(config, jax.devices()[:1])
    spec = step_spec(cifar_speedrun.build, config, data, mesh)
    numbers, task = (
        device_operands(config, data.spec, mesh),
        cifar_speedrun.build(config, data.spec),
    )
    split = jax.device_put(data.train, sharding.replicated(mesh))
    train = jax.jit(training(task, config, data.spec.num_train))

    def run_trial(seed: int) -> tuple[float, float, float]:
        began = time.monotonic()
        state = jax.block_until_ready(train(seed, split))
        trained = time.monotonic()
        accuracy = scalars(evaluate_split(spec, numbers, state, data.test))["accuracy"]
        return accuracy, trained - began, time.monotonic() - trained

    return run_trial


def run(config: Config) -> dict[str, Any]:
    """Times the trials; returns mean and deviation of accuracy, and median seconds."""
    run_trial = trial(config, cifar_speedrun.load(config))
    began = time.monotonic()
    run_trial(config.seed)
    say(f"compiled and trained once in {time.monotonic() - began:.1f} s")
    trials = []
    for seed in range(config.seed, config.seed + config.trials):
        accuracy, training_time, evaluation_time = run_trial(seed)
        trials.append((accuracy, training_time, evaluation_time))
        say(
            f"seed {seed}: accuracy {accuracy:.4f}, trained in {training_time:.3f} s, "
            f"evaluated in {evaluation_time:.3f} s"
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
