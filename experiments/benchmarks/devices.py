"""Memory and traffic per device in a step of a Transformer on N devices, as a table.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m experiments.benchmarks.devices

This is a simulation: the step is compiled for 1, 2, 4, ... of the available devices, and the
compiled program is read, not run. Each device has a batch of --batch_size examples. Traffic is that
of the program's collectives in a ring of devices (Patarasu & Yuan, 2009).
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
from jaxdl.train.step_spec import device_operands, step_spec
from jaxdl.train.train_step import Epoch, compile_step

PART = generated.Part(
    "<!-- devices: made by `python -m experiments.benchmarks.devices` -->",
    "<!-- end of devices -->",
)
HEADER = """| devices | memory of each | each sends | memory with `--fsdp` | each sends |
| --- | --- | --- | --- | --- |"""
# In a group of G devices each one sends (G - 1) / G times this factor times the size of the
# operation's result. 0 stands for a factor of G.
SENT = {"all-reduce": 2, "all-gather": 1, "all-to-all": 1, "reduce-scatter": 0}
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}
CALL = re.compile(rf"= (.*?) ({'|'.join(SENT)}|collective-permute)(?:-start)?\((.*)")
ARRAY = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
GROUPS = re.compile(r"replica_groups=mesh\[([^]]*)\].*?\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Config(cifar_vit.Config):
    """Config of `cifar_vit`; `batch_size` is that of one device."""

    dataset: str = "synthetic"
    page: str = flag("docs/scaling_out.md", "has the table", runtime=True)


def run(config: Config) -> dict[str, Any]:
    """Compiles for each number of devices and updates the table of the page.

    Raises:
      UserError: there is only one device, or the page has no place for the table.
    """
    devices = jax.devices()
    if len(devices) < 2:
        raise UserError(
            "there is only one device: set XLA_FLAGS=--xla_force_host_platform_device_count=8"
        )
    generated.check(Path(config.page), PART)
    data = cifar_vit.load(config)
    rows, count = [HEADER], 1
    while count <= len(devices):
        cells = [str(count)]
        for fsdp in (False, True):
            scaled = dataclasses.replace(config, fsdp=fsdp, batch_size=config.batch_size * count)
            memory, traffic = cost(scaled, data, devices[:count])
            cells += [f"{memory / 1e6:,.0f} MB", f"{traffic / 1e6:,.0f} MB"]
        rows.append(f"| {' | '.join(cells)} |")
        count *= 2
    generated.fill(Path(config.page), PART, "\n".join(rows))
    return {"page": config.page}


def cost(config: Config, data: Dataset, devices: list[jax.Device]) -> tuple[float, float]:
    """Returns the peak memory of a device in a step, and its traffic, both in bytes."""
    mesh = sharding.mesh(config, devices)
    program = compile_step(step_spec(cifar_vit.build, config, data, mesh))
    numbers, key = device_operands(config, data.spec, mesh), jax.random.key(config.seed)
    split = jax.device_put(data.train, sharding.replicated(mesh))
    epoch = Epoch(split, key, program.order({}, key, 0))
    compiled = program.compiled(numbers, program.start(numbers, key), epoch)
    return dry_run.peak_memory(compiled), sum(sent(compiled.as_text() or ""))


def sent(program: str) -> Iterator[float]:
    """Yields the bytes that each device sends for each collective in a compiled program's text."""
    for result, kind, operands_text in CALL.findall(program):
        size = sum(
            BYTES[dtype] * math.prod(int(n) for n in shape.split(",") if n)
            for dtype, shape in ARRAY.findall(result)
        )
        if kind == "collective-permute":
            yield size
            continue
        mesh_axes, group_axes = GROUPS.search(operands_text).groups()  # type: ignore[union-attr]
        sizes = dict(axis.split("=") for axis in mesh_axes.split(","))
        group = math.prod(int(sizes[name.strip()]) for name in group_axes.split(","))
        yield (group - 1) / group * size * (SENT[kind] or group)


if __name__ == "__main__":
    cli.main(run, Config)
