"""jaxdl's side of a benchmark: an experiment's own compiled step, called as the loop calls it.

    python -m experiments.benchmarks.jaxdl_side SPEC

Beside what the other sides do in a step, this one gathers its batch from the split in memory, crops
and flips it as the experiment does by default, adds up metrics and looks for numbers that are not
finite: all that is part of the step, and is timed. An epoch begins with the draw of its order.
SPEC is that of `beside_torch`, whose child this is.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments import cifar_resnet, cifar_vgg, mnist_lenet
from experiments.benchmarks import pair
from jaxdl import cli, environment, loop, memory, parallel
from jaxdl.data import batches
from jaxdl.data.images import Images
from jaxdl.program import Feed, compile_program

EXPERIMENTS = {"vgg16": cifar_vgg, "lenet5": mnist_lenet, "resnet18": cifar_resnet}
WARM_UP = 2  # turns' worth of calls that are not timed: the first compiles


def dataset(path: str) -> Images:
    """Images and labels of an .npz file, all of them to train on."""
    with np.load(path, allow_pickle=False) as arrays:
        split = {"image": arrays["image"], "label": arrays["label"].astype(np.int32)}
    few = {name: array[:1] for name, array in split.items()}
    return Images("noise", "1", "", "made for a benchmark", split, few, few, num_classes=10)


def side(spec: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], float]]:
    """Builds and warms up; returns a report, and a turn that takes seconds a step or epoch."""
    experiment = EXPERIMENTS[spec["model"]]
    config = experiment.Config(batch_size=spec["batch_size"], dtype=spec["dtype"])
    data = dataset(spec["data"])
    task = experiment.build(config, data)
    device = jax.devices()[:1]  # as many as the other sides use
    mesh = parallel.data_mesh(config.batch_size, device)
    examples = batches.size(data.train)
    program = compile_program(task, config, data.train, mesh)
    split = jax.device_put(data.train, parallel.replicated(mesh))
    key = jax.random.key(config.seed)
    carry, feed = program.start(key), Feed(split, key, program.order(key, 0))
    described = environment.describe() | {"devices": [device[0].device_kind]}
    versions = {name: described["packages"][name] for name in environment.NUMERIC}
    report = {
        "parameters": loop.parameters(carry.state),
        "backend": described["backend"],
        "hardware": environment.hardware(described),
        "cores": described["cpus"],
        "versions": versions | {"python": described["python"]},
    }
    steps = spec["steps"] or config.steps_per_epoch(examples)

    def turn() -> float:
        nonlocal carry, feed
        began = time.perf_counter()
        carry, feed = jax.block_until_ready(program.advance(carry, feed, steps))
        return (time.perf_counter() - began) / (spec["steps"] or 1)

    for _ in range(WARM_UP):
        turn()
        memory.keep()
    return report, turn


if __name__ == "__main__":
    cli.set_up_jax()
    pair.serve(*side(json.loads(sys.argv[1])))
