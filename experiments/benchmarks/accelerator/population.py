"""Training of many small models, as one program and one after the other: part of `accelerator`."""

import functools
import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import mnist_lenet
from experiments.benchmarks import pair, performance
from experiments.benchmarks.accelerator.report import Report
from jaxdl import cli
from jaxdl.data import batches
from jaxdl.errors import TrainingError
from jaxdl.task import State

MEMBERS, STEPS, TURNS = 64, 100, 5
IN_SMALL = 4, 2, 2
SAME = 0.02  # allowed relative difference of a member's parameters after one step
COMMAND = "python -m experiments.benchmarks.accelerator --only=population"


def compare(members: int, steps: int, turns: int) -> tuple[str, dict[str, Any]]:
    """Times the training of LeNet-5 with several seeds, by `vmap` and one after the other.

    Args:
      members: the number of seeds.
      steps: the number of steps of each training.
      turns: the number of times that each way is timed.

    Raises:
      TrainingError: a member differs from the same training alone.
    """
    config = mnist_lenet.Config(dataset="embedded")
    data = mnist_lenet.load(config)
    task, examples = mnist_lenet.build(config, data.spec), data.spec.num_train
    per_epoch = config.steps_per_epoch(examples)

    def train(seed: jax.Array, split: batches.Split, steps: jax.Array) -> optax.Params:
        state_key, data_key = jax.random.split(jax.random.key(seed))

        def step(n: jax.Array, state: State) -> State:
            order = batches.epoch_order(data_key, n // per_epoch, examples, config.batch_size)
            batch = batches.take(split, order, n % per_epoch, config.batch_size)
            return task.step(state, batch)[0]

        return jax.lax.fori_loop(0, steps, step, task.init(state_key)).params

    alone, together = jax.jit(train), jax.jit(jax.vmap(train, in_axes=(0, None, None)))
    split, seeds = jax.device_put(data.train), jnp.arange(members)

    def in_turn(count: int) -> list[optax.Params]:
        return [alone(seed, split, jnp.int32(count)) for seed in seeds]

    check(together(seeds, split, jnp.int32(1)), in_turn(1))
    seconds: dict[str, list[float]] = {"together": [], "in turn": []}
    calls = {
        "together": functools.partial(together, seeds, split, jnp.int32(steps)),
        "in turn": functools.partial(in_turn, steps),
    }
    for _ in range(turns):
        for name, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - began)
    ratios = pair.ratios(seconds["together"], seconds["in turn"])
    case = f"{members} LeNet-5 by vmap, batches of {config.batch_size}"
    entry = performance.cost(case, ratios, "of the time in turn", COMMAND)
    each = 1e3 * pair.spread(seconds["in turn"])["median"] / members / steps
    text = f"{entry['value']['median']:.3f} of the time in turn, of {each:.3g} ms a step each"
    return text, {"entries": [["costs", entry]]}


def check(together: optax.Params, in_turn: list[optax.Params]) -> None:
    """Checks that each member has nearly the same parameters as the same training alone.

    Raises:
      TrainingError: a member differs.
    """
    for n, params in enumerate(in_turn):
        ours, theirs = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
            for tree in (jax.tree.map(lambda leaf, n=n: leaf[n], together), params)
        )
        if not np.linalg.norm(ours - theirs) <= SAME * np.linalg.norm(theirs):
            raise TrainingError(f"member {n} by vmap differs from the same training alone")


def main(report: Report) -> None:
    """Measures the population."""
    members, steps, turns = IN_SMALL if report.rehearse else (MEMBERS, STEPS, TURNS)
    report.attempt(
        f"population/{members} LeNet-5", functools.partial(compare, members, steps, turns)
    )


if __name__ == "__main__":
    cli.set_up_jax()
    main(Report(json.loads(sys.argv[1])))
