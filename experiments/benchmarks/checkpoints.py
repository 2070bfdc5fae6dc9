"""Cost of a checkpoint: how long the loop waits, the time until it is on disk, and to read it.

    python -m experiments.benchmarks.checkpoints

Of VGG-16's whole state at full width, with its momentum. The loop waits while the state is copied
off the device; hashing and writing go on in the background, beside the next steps. A hundred MB
written plainly to the same disk are timed too, in the same turn.
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
from jaxdl.train.step_spec import operands, step_spec
from jaxdl.train.train_step import compile_step

COMMAND = "python -m experiments.benchmarks.checkpoints"


@dataclasses.dataclass(frozen=True)
class Config(cifar_vgg.Config):
    """The VGG's."""

    dataset: str = "embedded"
    turns: int = flag(7, "times that each is timed", low=2)
    results: str = flag(performance.KEPT, "folder of the files of figures", runtime=True)


def run(config: Config) -> dict[str, Any]:
    """Times saving and restoring; returns the medians, and the size in MB."""
    origin = performance.origin(Path(config.results))
    mesh = sharding.mesh(config)
    program = compile_step(step_spec(cifar_vgg.build, config, cifar_vgg.load(config), mesh))
    carry = program.start(operands(config, mesh), jax.random.key(config.seed))
    jax.block_until_ready(carry)
    size = sum(leaf.nbytes for leaf in tree.flatten(carry).values())
    best = {"step": 0, "value": None, "since": 0, "than": None}
    known = {
        "step": 1, "identity": saved_config.identity(config), "versions": {}, "best": best,
        "anchor": [0, 0], "detours": [], "seconds": 0.0, "timed": [0, 0.0],
    }  # fmt: skip
    seconds: dict[str, list[float]] = {}

    def timed(case: str, began: float) -> None:
        seconds.setdefault(f"{case} VGG-16's {size / 1e6:.0f} MB", []).append(
            time.monotonic() - began
        )

    for _ in range(config.turns):
        with tempfile.TemporaryDirectory(dir=".") as name:
            kept = Checkpoints(Path(name))
            began = time.monotonic()
            kept.save(1, carry, known, "", ())
            timed("the loop waits for a checkpoint of", began)
            kept.wait()
            timed("until it is verified and on disk:", began)
            began = time.monotonic()
            kept.restore(1, carry)
            timed("verifying and reading a checkpoint of", began)
            kept.close()
            began = time.monotonic()
            with (Path(name) / "plain").open("wb") as file:
                file.write(bytes(size))
                os.fsync(file.fileno())
            timed("for comparison, a plain file of", began)
    return {
        case: performance.keep_cost(Path(config.results), case, values, "s", COMMAND, origin)
        for case, values in seconds.items()
    }


if __name__ == "__main__":
    cli.main(run, Config)
