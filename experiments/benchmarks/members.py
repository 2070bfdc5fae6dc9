"""Members of a population beside their solo runs: the losses of a mapped step, everywhere.

    python -m experiments.benchmarks.members
    python -m experiments.benchmarks.members --only=mnist_lenet,cifar_vit

The step of each experiment, in its smallest form, is mapped by `jax.vmap` over the hyperparameters
and keys of two members; the first has those of a run alone. Prints the greatest difference of
their losses over the steps, relative to 1 or the loss.
"""

import dataclasses
import importlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.accelerator.short import SHORT
from jaxdl import cli, hyperparameters
from jaxdl.config import RunConfig, flag
from jaxdl.console import say
from jaxdl.data import batches
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags
from jaxdl.train.step_spec import step_spec, task_functions

SMALL = {"shakespeare_lm": ["--length=32"]}  # in place of the short run's


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Which experiments, and for how long."""

    only: str = flag("", "names of experiments, with commas between; default: all")
    num_steps: int = 20


class Difference(NamedTuple):
    """Differences of losses over all steps, relative to 1 or the loss."""

    difference: float  # of the first member and its solo run
    other: float  # of the first member and the second


def differences(name: str, steps: int) -> Difference:
    """Trains two members together and the first alone, for so many steps."""
    module = importlib.import_module(f"experiments.{name}")
    config = parse_flags(module.Config, [*SHORT[name], *SMALL.get(name, [])])
    assert config is not None
    data, numbers = module.load(config), hyperparameters.operands(config)
    functions = task_functions(step_spec(module.build, config, data, sharding.mesh(config)))
    half = {n: value / 2 for n, value in numbers.items()} | {"seed": 1}
    two = {n: jnp.asarray([numbers[n], half[n]]) for n in numbers}
    keys = jax.random.split(jax.random.key(0))
    states = jax.jit(jax.vmap(functions.init))(two, keys)
    state = jax.jit(functions.init)(numbers, keys[0])
    together = jax.jit(jax.vmap(functions.step, (0, 0, None)), donate_argnums=1)
    alone = jax.jit(functions.step, donate_argnums=1)
    lengths = jnp.asarray(data.train["length"]) if "length" in data.train else None
    per_epoch, size = config.steps_per_epoch(data.spec.num_train), config.batch_size
    difference = other = 0.0
    for step in range(steps):
        epoch = jax.random.key(1), step // per_epoch
        order = batches.epoch_order(*epoch, data.spec.num_train, size, lengths)
        batch = batches.take(data.train, order, step % per_epoch, size)
        states, both = together(two, states, batch)
        state, one = alone(numbers, state, batch)
        for metric in (name for name in one if "loss" in name or name == "change"):
            first, second = values(both[metric])
            (wanted,) = values(one[metric])
            scale = max(1.0, abs(wanted))
            difference = max(difference, abs(first - wanted) / scale)
            other = max(other, abs(first - second) / scale)
    return Difference(difference, other)


def values(pair: Any) -> list[float]:
    """The value of a metric, for each member if there are several."""
    totals, counts = (np.atleast_1d(np.asarray(x, np.float64)) for x in pair)
    return (totals / np.maximum(counts, 1e-9)).tolist()


def run(config: Config) -> dict[str, float]:
    """The difference of each experiment."""
    found = {}
    names = config.only.split(",") if config.only else list(SHORT)
    for name in names:
        if name not in SHORT:
            raise UserError(f"--only={name}: choose some of {', '.join(SHORT)}")
    for name in names:
        found[name] = differences(name, config.num_steps).difference
        say(f"{name}: {found[name]:.2g}")
    return found


if __name__ == "__main__":
    cli.main(run, Config)
