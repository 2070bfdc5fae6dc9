"""Memory and traffic of each of N devices in a step of a Transformer; the README's table of it.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m experiments.benchmarks.devices

A simulation: the step is compiled for 1, 2, 4, ... of the devices that are there, and its program
is read, not run. Each device has a batch of --batch_size. What is sent are the results of the
program's collectives, as a ring of devices sends them (Patarasu & Yuan, 2009).
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from experiments import cifar_vit
from experiments.benchmarks import generated
from jaxdl import cli
from jaxdl.config import flag
from jaxdl.data.batches import Dataset
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.train import dry_run
from jaxdl.train.step_spec import operands, step_spec
from jaxdl.train.train_step import Epoch, compile_step

PART = generated.Part(
    "<!-- devices: made by `python -m experiments.benchmarks.devices` -->",
    "<!-- end of devices -->",
)
HEADER = """| devices | memory of each | each sends | memory with `--fsdp` | each sends |
| --- | --- | --- | --- | --- |"""
# Each of a group of G devices sends (G - 1) / G times this of an operation's result; 0: G times.
SENT = {"all-reduce": 2, "all-gather": 1, "all-to-all": 1, "reduce-scatter": 0}
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}
CALL = re.compile(rf"= (.*?) ({'|'.join(SENT)}|collective-permute)(?:-start)?\((.*)")
ARRAY = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
GROUPS = re.compile(r"replica_groups=mesh\[([^]]*)\].*?\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Config(cifar_vit.Config):
    """The image Transformer's; a batch is of each device."""

    dataset: str = "synthetic"
    page: str = flag("docs/scaling_out.md", "has the table", runtime=True)


def run(config: Config) -> dict[str, Any]:
    """Compiles for each number of devices, and makes the page's table anew."""
    devices = jax.devices()
    if len(devices) < 2:
        raise UserError(
            "there is one device alone: set XLA_FLAGS=--xla_force_host_platform_device_count=8"
        )
    generated.check(Path(config.page), PART)
    data = cifar_vit.load(config)
    rows, count = [HEADER], 1
    while count <= len(devices):
        cells = [str(count)]
        for fsdp in (False, True):
            here = dataclasses.replace(config, fsdp=fsdp, batch_size=config.batch_size * count)
            held, sent = cost(here, data, devices[:count])
            cells += [f"{held / 1e6:,.0f} MB", f"{sent / 1e6:,.0f} MB"]
        rows.append(f"| {' | '.join(cells)} |")
        count *= 2
    generated.fill(Path(config.page), PART, "\n".join(rows))
    return {"page": config.page}


def cost(config: Config, data: Dataset, devices: list[jax.Device]) -> tuple[float, float]:
    """Bytes that each device holds at the peak of a step, and that it sends in one."""
    mesh = sharding.mesh(config, devices)
    program = compile_step(step_spec(cifar_vit.build, config, data, mesh))
    numbers, key = operands(config, mesh), jax.random.key(config.seed)
    split = jax.device_put(data.train, sharding.replicated(mesh))
    epoch = Epoch(split, key, program.order({}, key, 0))
    compiled = program.compiled(numbers, program.start(numbers, key), epoch)
    return dry_run.peak_memory(compiled), sum(sent(compiled.as_text() or ""))


def sent(program: str) -> Iterator[float]:
    """Bytes that each device sends for each collective of a compiled program's text."""
    for result, kind, rest in CALL.findall(program):
        size = sum(
            BYTES[dtype] * math.prod(int(n) for n in shape.split(",") if n)
            for dtype, shape in ARRAY.findall(result)
        )
        if kind == "collective-permute":
            yield size
            continue
        axes, chosen = GROUPS.search(rest).groups()  # type: ignore[union-attr]
        sizes = dict(axis.split("=") for axis in axes.split(","))
        group = math.prod(int(sizes[name.strip()]) for name in chosen.split(","))
        yield (group - 1) / group * size * (SENT[kind] or group)


if __name__ == "__main__":
    cli.main(run, Config)
