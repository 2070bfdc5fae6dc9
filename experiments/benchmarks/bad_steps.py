"""Cost of checking that a step is finite, and of leaving the state as it was if it is not.

    python -m experiments.benchmarks.bad_steps --width_multiplier=0.25 --batch_size=64

The VGG's compiled step beside the same one without the check. Both sides run in one process, in
turns of which every second begins with the other side; the figure is the median of their ratios.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments import cifar_vgg
from jaxdl import cli, metrics
from jaxdl.config import flag
from jaxdl.data import batches
from jaxdl.distributed import sharding
from jaxdl.train.step_spec import Operands, build_task, operands, step_spec
from jaxdl.train.train_step import Epoch, LoopState, compile_step

Advance = Callable[[Operands, LoopState, Epoch, int], tuple[LoopState, Epoch]]


@dataclasses.dataclass(frozen=True)
class Config(cifar_vgg.Config):
    """The VGG's, on digits."""

    dataset: str = flag("embedded", "of TFDS, or embedded (digits), digits, synthetic")
    num_steps: int = flag(20, "updates of a turn", low=1)
    turns: int = flag(20, "times that each side is timed", low=2)


def run(config: Config) -> dict[str, Any]:
    """Times both sides; returns the median of the turns' ratios and its quartiles."""
    data = cifar_vgg.load(config)
    mesh = sharding.mesh(config)
    whole, shards = sharding.replicated(mesh), sharding.sharded(mesh)
    spec = step_spec(cifar_vgg.build, config, data, mesh)
    program, numbers = compile_step(spec), operands(config, mesh)
    key = jax.random.key(config.seed)
    split = jax.device_put(data.train, whole)
    per_epoch = config.steps_per_epoch(data.spec.num_train)

    def epoch() -> Epoch:  # a call gives the order away
        return Epoch(split, key, program.order({}, key, 0))

    @functools.partial(jax.jit, donate_argnums=1, out_shardings=whole)
    def bare(numbers: Operands, carry: LoopState, epoch: Epoch, steps: jax.Array) -> LoopState:
        task = build_task(spec, numbers)

        def step(_: jax.Array, carry: LoopState) -> LoopState:
            position = carry.state.step % per_epoch
            batch = batches.take(epoch.split, epoch.order, position, config.batch_size, shards)
            batch = jax.lax.with_sharding_constraint(batch, shards)
            state, new = task.step(carry.state, batch)
            return carry._replace(state=state, metrics=metrics.add(carry.metrics, new))

        return jax.lax.fori_loop(0, steps, step, carry)

    def plain(
        numbers: Operands, carry: LoopState, epoch: Epoch, steps: int
    ) -> tuple[LoopState, Epoch]:
        return bare(numbers, carry, epoch, np.int32(steps)), epoch

    def seconds(advance: Advance) -> float:
        carry = program.start(numbers, key)
        carry, _ = jax.block_until_ready(advance(numbers, carry, epoch(), 1))
        began = time.monotonic()
        jax.block_until_ready(advance(numbers, carry, epoch(), config.num_steps))
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
