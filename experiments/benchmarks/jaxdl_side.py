"""jaxdl's side of a benchmark: an experiment's own compiled step, called as the loop calls it.

    python -m experiments.benchmarks.jaxdl_side SPEC

This side does more in a step than the others: it gathers the batch from the split in memory, crops
and flips it as the experiment does by default, adds up metrics and checks for nonfinite values. All
of it is timed. An epoch begins with drawing the order of its examples. `beside_torch` starts this
process and writes SPEC.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import (
    cartpole_ppo,
    cifar_resnet,
    cifar_vgg,
    cifar_vit,
    mnist_lenet,
    multi30k_transformer,
    shakespeare_lm,
)
from experiments.benchmarks import cases, pair
from jaxdl import cli, memory, tree
from jaxdl.data import batches, images
from jaxdl.data.batches import Dataset
from jaxdl.data.describe import describe
from jaxdl.distributed import sharding
from jaxdl.nn import onednn
from jaxdl.run import environment
from jaxdl.train.step_spec import device_operands, step_spec
from jaxdl.train.train_step import Epoch, compile_step

EXPERIMENTS = {
    "vgg16": cifar_vgg,
    "lenet5": mnist_lenet,
    "resnet18": cifar_resnet,
    "resnet50": cifar_resnet,
    "vit": cifar_vit,
    "transformer": multi30k_transformer,
    "ppo": cartpole_ppo,
} | dict.fromkeys(cases.CELLS, shakespeare_lm)
LAYERS = {"features": 256, "layers": 2, "length": cases.WINDOW}  # sizes of the recurrent models
OPTIONS: dict[str, dict[str, Any]] = {
    "resnet50": {"depth": "50", "stem": "imagenet", "image_size": 224},
    **{cell: {"model": cell, **LAYERS} for cell in cases.CELLS},
}
WARM_UP = 2  # untimed turns; the first one compiles


def dataset(model: str, path: str) -> Dataset:
    """Returns a data set with all examples of an .npz file in its training split."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name].astype(np.int32) for name in file if name != "image"}
        arrays |= {name: file[name] for name in file if name == "image"}
    about: dict[str, Any] = {}
    if model in cases.IMAGES:
        mean, std = images.statistics(arrays["image"])
        about = {"num_classes": 10, "constants": {"mean": mean, "std": std}}
    elif model in cases.CELLS:
        start = np.arange(len(arrays["text"]) - cases.WINDOW)
        tokens = batches.windows(arrays["text"], start, cases.WINDOW + 1)
        arrays = {"tokens": tokens, "first": np.zeros(len(start), np.int32)}
        about = {"vocabulary": cases.CHARACTERS}
    else:
        arrays["length"] = np.full(len(arrays["source"]), cases.SENTENCE, np.int32)
        about = {"vocabulary": cases.TOKENS, "widths": (cases.SENTENCE,)}
    spec = describe(arrays, name="noise", version="1", fingerprint="", **about)
    return Dataset(spec, arrays, {}, {})


def side(spec: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], float]]:
    """Builds and warms up the side.

    Returns:
      The report, and a function that runs a turn and returns its seconds per step, or the seconds
      of an epoch where `spec["steps"]` is 0.
    """
    experiment = EXPERIMENTS[spec["model"]]
    options = OPTIONS.get(spec["model"], {})
    config = experiment.Config(batch_size=spec["batch_size"], dtype=spec["dtype"], **options)
    is_agent = isinstance(config, cartpole_ppo.Config)
    data = cartpole_ppo.load(config) if is_agent else dataset(spec["model"], spec["data"])
    device = jax.devices()[:1]  # the other sides use one device, too
    mesh = sharding.mesh(config, device)
    program = compile_step(step_spec(experiment.build, config, data, mesh))
    numbers, key = device_operands(config, data.spec, mesh), jax.random.key(config.seed)
    split = jax.device_put(data.train, sharding.replicated(mesh))
    loop_state = program.start(numbers, key)
    epoch = Epoch(split, key, program.order(split, key, 0))
    described = environment.describe() | {"devices": [device[0].device_kind]}
    versions = {name: described["packages"][name] for name in environment.NUMERIC}
    steps = spec["steps"] or config.steps_per_epoch(data.spec.num_train)

    def turn() -> float:
        nonlocal loop_state, epoch
        began = time.perf_counter()
        loop_state, epoch = jax.block_until_ready(
            program.advance(numbers, loop_state, epoch, steps)
        )
        return (time.perf_counter() - began) / (spec["steps"] or 1)

    for _ in range(WARM_UP):
        turn()
        memory.keep()
    report = {
        "parameters": tree.count(tree.trained(loop_state.state)),
        "backend": described["backend"],
        "hardware": environment.hardware(described),
        "cores": described["cpus"],
        "versions": versions | {"python": described["python"]},
        "tf32": tf32(),
        "flops": program.flops.total(),  # per step
    }
    if program.native and isinstance(onednn.current(), onednn.Engine):
        report["native"] = onednn.describe()
    memory_stats = device[0].memory_stats()  # None on a CPU
    if memory_stats:
        report["memory_bytes"] = memory_stats["peak_bytes_in_use"]
    return report, turn


def kernels(turn: Callable[[], Any], steps: int) -> list[list[Any]]:
    """Profiles a turn on a GPU.

    Args:
      turn: runs a turn.
      steps: the number of steps in a turn.

    Returns:
      A list [name, seconds per step, launches per step] for each kernel. The name is that of the
      kernel and of the JAX operation that it belongs to.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            turn()
        (path,) = Path(folder).rglob("*.xplane.pb")
        planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
    lines = [line for p in planes if p.name.startswith("/device:GPU") for line in p.lines]
    totals: dict[str, list[float]] = {}
    for event in (event for line in lines if "Stream" in line.name for event in line.events):
        stats = dict(event.stats)
        name = f"{event.name}: {stats.get('hlo_op', '')} {stats.get('name', '')}".strip(": ")
        total = totals.setdefault(name, [0.0, 0.0])
        total[0] += 1e-9 * event.duration_ns / steps
        total[1] += 1 / steps
    return [[name, *total] for name, total in totals.items()]


def tf32() -> bool:
    """Returns whether float32 products use TensorFloat-32, judged by the error of a product."""
    x = np.random.default_rng(0).random((256, 256), np.float32)
    exact = x.astype(np.float64) @ x.astype(np.float64)
    error = np.linalg.norm(np.asarray(jnp.asarray(x) @ jnp.asarray(x)) - exact)
    return bool(error / np.linalg.norm(exact) > 1e-5)


if __name__ == "__main__":
    cli.set_up_jax()
    spec = json.loads(sys.argv[1])
    report, turn = side(spec)
    pair.serve(report, turn=turn, kernels=lambda: kernels(turn, spec["steps"] or 1))
