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
from jaxdl import cli, metrics, parallel
from jaxdl.config import flag
from jaxdl.data import batches
from jaxdl.program import Carry, Feed, compile_program


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
    mesh = parallel.mesh(config)
    whole, shards = parallel.replicated(mesh), parallel.sharded(mesh)
    program = compile_program(task, config, data.train, mesh)
    key = jax.random.key(config.seed)
    split = jax.device_put(data.train, whole)
    per_epoch = config.steps_per_epoch(batches.size(data.train))

    def feed() -> Feed:  # a call gives the order away
        return Feed(split, key, program.order(key, 0))

    def unchecked(carry: Carry, feed: Feed) -> Carry:
        step = carry.state.step % per_epoch
        batch = batches.take(feed.split, feed.order, step, config.batch_size)
        state, new = task.step(carry.state, jax.lax.with_sharding_constraint(batch, shards))
        return carry._replace(state=state, metrics=metrics.add(carry.metrics, new))

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=whole)
    def bare(carry: Carry, feed: Feed, steps: jax.Array) -> Carry:
        return jax.lax.fori_loop(0, steps, lambda _, carry: unchecked(carry, feed), carry)

    def plain(carry: Carry, feed: Feed, steps: int) -> tuple[Carry, Feed]:
        return bare(carry, feed, np.int32(steps)), feed

    def seconds(advance: Callable[[Carry, Feed, int], tuple[Carry, Feed]]) -> float:
        carry, _ = jax.block_until_ready(advance(program.start(key), feed(), 1))
        began = time.monotonic()
        jax.block_until_ready(advance(carry, feed(), config.num_steps))
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
