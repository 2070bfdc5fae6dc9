"""Cost of the check for nonfinite steps, which keep the previous state.

    python -m experiments.benchmarks.bad_steps --width_multiplier=0.25 --batch_size=64

Compares the compiled step of the VGG with the same step without the check. Both sides run in one
process, in turns, and the order of the sides alternates between turns. The result is the median of
the ratios of their times.
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
from jaxdl.train.step_spec import Operands, build_task, device_operands, step_spec
from jaxdl.train.train_step import Epoch, LoopState, compile_step

Advance = Callable[[Operands, LoopState, Epoch, int], tuple[LoopState, Epoch]]


@dataclasses.dataclass(frozen=True)
class Config(cifar_vgg.Config):
    """Config of `cifar_vgg`, on digits, with the number of timed turns."""

    dataset: str = flag(
        "embedded", "name of a TFDS data set, embedded (digits), digits or synthetic"
    )
    num_steps: int = flag(20, "number of updates in a turn", low=1)
    turns: int = flag(20, "number of times that each side is timed", low=2)


def run(config: Config) -> dict[str, Any]:
    """Times both sides; returns the median and quartiles of the ratio checked / unchecked."""
    data = cifar_vgg.load(config)
    mesh = sharding.mesh(config)
    replicated, shards = sharding.replicated(mesh), sharding.sharded(mesh)
    spec = step_spec(cifar_vgg.build, config, data, mesh)
    program = compile_step(spec)
    numbers = device_operands(config, data.spec, mesh)
    key = jax.random.key(config.seed)
    split = jax.device_put(data.train, replicated)
    per_epoch = config.steps_per_epoch(data.spec.num_train)

    def epoch() -> Epoch:  # new for each call, because a call donates the order
        return Epoch(split, key, program.order({}, key, 0))

    @functools.partial(jax.jit, donate_argnums=1, out_shardings=replicated)
    def unchecked_loop(
        numbers: Operands, loop_state: LoopState, epoch: Epoch, steps: jax.Array
    ) -> LoopState:
        task = build_task(spec, numbers)

        def step(_: jax.Array, loop_state: LoopState) -> LoopState:
            position = loop_state.state.step % per_epoch
            batch = batches.take(epoch.split, epoch.order, position, config.batch_size, shards)
            batch = jax.lax.with_sharding_constraint(batch, shards)
            state, step_metrics = task.step(loop_state.state, batch)
            totals = metrics.add(loop_state.metrics, step_metrics)
            return loop_state._replace(state=state, metrics=totals)

        return jax.lax.fori_loop(0, steps, step, loop_state)

    def advance_unchecked(
        numbers: Operands, loop_state: LoopState, epoch: Epoch, steps: int
    ) -> tuple[LoopState, Epoch]:
        return unchecked_loop(numbers, loop_state, epoch, np.int32(steps)), epoch

    def seconds(advance: Advance) -> float:
        loop_state = program.start(numbers, key)
        loop_state, _ = jax.block_until_ready(advance(numbers, loop_state, epoch(), 1))
        began = time.monotonic()
        jax.block_until_ready(advance(numbers, loop_state, epoch(), config.num_steps))
        return time.monotonic() - began

    ratios = []
    for turn in range(config.turns):
        if turn % 2:
            checked = seconds(program.advance)
            unchecked = seconds(advance_unchecked)
        else:
            unchecked = seconds(advance_unchecked)
            checked = seconds(program.advance)
        ratios.append(checked / unchecked)
    lower, median, upper = statistics.quantiles(ratios, n=4)
    return {
        "ratio": median,
        "lower_quartile": lower,
        "upper_quartile": upper,
        "turns": config.turns,
        "device": jax.devices()[0].device_kind,
    }


if __name__ == "__main__":
    cli.main(run, Config)
