"""Losses of the members of a population compared with their solo runs, for every experiment.

    python -m experiments.benchmarks.members
    python -m experiments.benchmarks.members --only=mnist_lenet,cifar_vit

The step of each experiment, in its smallest form, is mapped by `jax.vmap` over the hyperparameters
and keys of two members. The first member has those of a solo run. Prints the largest difference of
their losses over the steps, relative to the loss or to 1, whichever is larger.
"""

import dataclasses
import importlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.accelerator.short import SHORT
from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.console import say
from jaxdl.data import batches
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags
from jaxdl.train.step_spec import operands, step_spec, task_functions

SMALL = {"shakespeare_lm": ["--length=32"]}  # flags that override those of the short run


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Experiments to compare, and the number of steps."""

    only: str = flag("", "comma-separated names of experiments; default: all")
    num_steps: int = 20


class Difference(NamedTuple):
    """Largest differences of losses over all steps, relative to the loss or to 1."""

    difference: float  # between the first member and its solo run
    other: float  # between the first member and the second one


def differences(name: str, steps: int) -> Difference:
    """Trains two members in one program and the first one alone; returns the differences.

    Args:
      name: the name of the experiment.
      steps: the number of steps to train.
    """
    module = importlib.import_module(f"experiments.{name}")
    config = parse_flags(module.Config, [*SHORT[name], *SMALL.get(name, [])])
    assert config is not None
    data = module.load(config)
    numbers = operands(config, data.spec)
    functions = task_functions(step_spec(module.build, config, data, sharding.mesh(config)))
    halved = {n: value / 2 for n, value in numbers.items()} | {"seed": 1}
    stacked = {n: jnp.asarray([numbers[n], halved[n]]) for n in numbers}
    keys = jax.random.split(jax.random.key(0))
    states = jax.jit(jax.vmap(functions.init))(stacked, keys)
    state = jax.jit(functions.init)(numbers, keys[0])
    mapped_step = jax.jit(jax.vmap(functions.step, (0, 0, None)), donate_argnums=1)
    solo_step = jax.jit(functions.step, donate_argnums=1)
    lengths = jnp.asarray(data.train["length"]) if "length" in data.train else None
    per_epoch, size = config.steps_per_epoch(data.spec.num_train), config.batch_size
    difference = other = 0.0
    for step in range(steps):
        epoch = jax.random.key(1), step // per_epoch
        order = batches.epoch_order(*epoch, data.spec.num_train, size, lengths)
        batch = batches.take(data.train, order, step % per_epoch, size)
        states, member_metrics = mapped_step(stacked, states, batch)
        state, solo_metrics = solo_step(numbers, state, batch)
        for metric in (name for name in solo_metrics if "loss" in name or name == "change"):
            first, second = values(member_metrics[metric])
            (solo,) = values(solo_metrics[metric])
            scale = max(1.0, abs(solo))
            difference = max(difference, abs(first - solo) / scale)
            other = max(other, abs(first - second) / scale)
    return Difference(difference, other)


def values(pair: Any) -> list[float]:
    """Returns total / count of a metric: one value, or one for each member."""
    totals, counts = (np.atleast_1d(np.asarray(x, np.float64)) for x in pair)
    return (totals / np.maximum(counts, 1e-9)).tolist()


def run(config: Config) -> dict[str, float]:
    """Returns the difference between member and solo run for each experiment.

    Raises:
      UserError: `--only` names an unknown experiment.
    """
    results = {}
    names = config.only.split(",") if config.only else list(SHORT)
    for name in names:
        if name not in SHORT:
            raise UserError(f"--only={name}: choose some of {', '.join(SHORT)}")
    for name in names:
        results[name] = differences(name, config.num_steps).difference
        say(f"{name}: {results[name]:.2g}")
    return results


if __name__ == "__main__":
    cli.main(run, Config)
