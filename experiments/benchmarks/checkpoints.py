"""Cost of a checkpoint: the time that the loop waits, the time to disk, and the time to read it.

    python -m experiments.benchmarks.checkpoints

Saves the whole state of VGG-16 at full width, momentum included. The loop waits while the state is
copied off the device; hashing and writing run in the background, beside the next steps. For
comparison, each turn also times a plain file of the same size on the same disk.
"""

import dataclasses
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from experiments import cifar_vgg
from experiments.benchmarks import performance
from jaxdl import cli, saved_config, tree
from jaxdl.config import flag
from jaxdl.distributed import sharding
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.train.step_spec import device_operands, step_spec
from jaxdl.train.train_step import compile_step

COMMAND = "python -m experiments.benchmarks.checkpoints"


@dataclasses.dataclass(frozen=True)
class Config(cifar_vgg.Config):
    """Config of `cifar_vgg`, on digits, with the number of timed turns."""

    dataset: str = "embedded"
    turns: int = flag(7, "number of times that each operation is timed", low=2)
    results: str = flag(performance.KEPT, "folder of the files of figures", runtime=True)


def run(config: Config) -> dict[str, Any]:
    """Times saving and restoring; returns the median seconds by case, whose name has the size."""
    origin = performance.origin(Path(config.results))
    mesh = sharding.mesh(config)
    data = cifar_vgg.load(config)
    program = compile_step(step_spec(cifar_vgg.build, config, data, mesh))
    numbers = device_operands(config, data.spec, mesh)
    loop_state = program.start(numbers, jax.random.key(config.seed))
    jax.block_until_ready(loop_state)
    size = sum(leaf.nbytes for leaf in tree.flatten(loop_state).values())
    best = {"step": 0, "value": None, "since": 0, "than": None}
    record = {
        "step": 1, "identity": saved_config.identity(config), "versions": {}, "best": best,
        "anchor": [0, 0], "detours": [], "seconds": 0.0, "timed": [0, 0.0],
    }  # fmt: skip
    seconds: dict[str, list[float]] = {}

    def add_time(case: str, began: float) -> None:
        elapsed = time.monotonic() - began
        seconds.setdefault(f"{case} VGG-16's {size / 1e6:.0f} MB", []).append(elapsed)

    for _ in range(config.turns):
        with tempfile.TemporaryDirectory(dir=".") as name:
            saved = Checkpoints(Path(name))
            began = time.monotonic()
            saved.save(1, loop_state, record, "", ())
            add_time("the loop waits for a checkpoint of", began)
            saved.wait()
            add_time("until it is verified and on disk:", began)
            began = time.monotonic()
            saved.restore(1, loop_state)
            add_time("verifying and reading a checkpoint of", began)
            saved.close()
            began = time.monotonic()
            with (Path(name) / "plain").open("wb") as file:
                file.write(bytes(size))
                os.fsync(file.fileno())
            add_time("for comparison, a plain file of", began)
    return {
        case: performance.save_cost(Path(config.results), case, values, "s", COMMAND, origin)
        for case, values in seconds.items()
    }


if __name__ == "__main__":
    cli.main(run, Config)
