"""What it costs to notice that a step is not finite, and to change nothing then.

    python -m experiments.benchmarks.bad_steps --width_multiplier=0.25 --batch_size=64

The VGG's compiled step beside the same one without the check. Both sides run in one process, in
turns of which every second begins with the other side; the figure is the median of their ratios.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from experiments import cifar_vgg
from jaxdl import cli, metrics, parallel
from jaxdl.config import flag
from jaxdl.data import batches
from jaxdl.program import Carry, compile_program


@dataclasses.dataclass(frozen=True)
class Config(cifar_vgg.Config):
    """The VGG's, on digits."""

    dataset: str = flag("embedded", "of TFDS, or embedded (digits), digits, synthetic")
    num_steps: int = flag(20, "updates of a turn", low=1)
    turns: int = flag(20, "times that each side is timed", low=2)


def run(config: Config) -> dict[str, Any]:
    """Times both sides; returns the median of the turns' ratios and its quartiles."""
    data = cifar_vgg.load(config)
    task = cifar_vgg.build(config, data)
    mesh = parallel.data_mesh(config.batch_size)
    whole, shards = parallel.replicated(mesh), parallel.sharded(mesh)
    program = compile_program(task, config, batches.size(data.train), mesh)
    split = jax.device_put(data.train, whole)
    key = jax.random.key(config.seed)
    order = program.order(key, 0)
    per_epoch = config.steps_per_epoch(batches.size(data.train))

    def unchecked(carry: Carry, split: batches.Split, order: jax.Array) -> Carry:
        step = carry.state.step % per_epoch
        batch = batches.take(split, order, step, config.batch_size)
        state, new = task.step(carry.state, jax.lax.with_sharding_constraint(batch, shards))
        return carry._replace(state=state, metrics=metrics.add(carry.metrics, new))

    plain = jax.jit(unchecked, donate_argnums=0, out_shardings=whole)

    def seconds(advance: Callable[..., Carry]) -> float:
        carry = advance(program.start(key, split, order), split, order)
        jax.block_until_ready(carry)
        began = time.monotonic()
        for _ in range(config.num_steps):
            carry = advance(carry, split, order)
        jax.block_until_ready(carry)
        return time.monotonic() - began

    ratios = []
    for turn in range(config.turns):
        if turn % 2:
            checked, without = seconds(program.advance), seconds(plain)
        else:
            without, checked = seconds(plain), seconds(program.advance)
        ratios.append(checked / without)
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    return {
        "ratio": middle,
        "lower_quartile": lower,
        "upper_quartile": upper,
        "turns": config.turns,
        "device": jax.devices()[0].device_kind,
    }


if __name__ == "__main__":
    cli.main(run, Config)
