"""Convolutions on a CPU by oneDNN and by the other forms, in turns: the table of `onednn.prefers`.

    python -m experiments.benchmarks.convolutions
    python -m experiments.benchmarks.convolutions --dtypes=bfloat16 --only=64x32x32 --turns=21

Each line has the three maps of one convolution. For each it has the GFLOP/s of the other forms and
of oneDNN, the ratio of times in the same turn (below 1 where oneDNN is faster) and a mark where
`prefers` chooses oneDNN.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import pair
from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.errors import UserError
from jaxdl.nn import conv_kernels, onednn
from jaxdl.nn.conv_window import Window

# Images, their side, channels in and out, side of the kernel, stride: VGG-16 and ResNet-18 at full
# and quarter width, LeNet-5, bottlenecks, and few or large images.
SHAPES = [
    "64x32x64x64x3x1",
    "64x32x64x128x3x2",
    "64x16x128x128x3x1",
    "64x16x128x256x3x2",
    "64x8x256x256x3x1",
    "64x8x256x512x3x2",
    "64x4x512x512x3x1",
    "64x4x256x512x3x1",
    "64x4x512x512x3x2",
    "64x2x512x512x3x1",
    "64x32x3x64x3x1",
    "64x32x64x128x1x2",
    "64x16x128x256x1x2",
    "64x8x256x512x1x2",
    "64x32x64x64x1x1",
    "16x8x512x512x1x1",
    "64x32x3x16x3x1",
    "64x32x16x16x3x1",
    "64x16x32x32x3x1",
    "64x8x64x64x3x1",
    "64x4x128x128x3x1",
    "64x2x128x128x3x1",
    "64x2x64x64x3x1",
    "16x2x512x512x3x1",
    "128x28x1x6x5x1",
    "128x14x6x16x5x1",
    "128x28x1x32x3x1",
    "1x32x64x64x3x1",
    "8x32x64x64x3x1",
    "4x56x64x64x3x1",
]
DTYPES = ("float32", "bfloat16")
FORMS = (conv_kernels.cpu_forward, conv_kernels.cpu_to_images, conv_kernels.cpu_to_kernel)


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Shapes, dtypes and the number of turns."""

    only: str = flag("", "comma-separated prefixes of shapes; empty: all shapes")
    dtypes: str = flag(",".join(DTYPES), "comma-separated dtypes")
    turns: int = flag(15, "number of times that each form is timed", low=2)


def in_turns(calls: tuple[Callable[[], Any], ...], turns: int) -> list[list[float]]:
    """Returns the seconds of each call in each turn, after two turns that are not timed."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(turns + 2):
        order = list(zip(calls, seconds, strict=True))
        for call, taken in reversed(order) if turn % 2 else order:
            start = time.perf_counter()
            jax.block_until_ready(call())
            taken.append(time.perf_counter() - start)
    return [taken[2:] for taken in seconds]


def compare(engine: onednn.Engine, shape: str, dtype: str, turns: int) -> list[str]:
    """Times the maps of a convolution; returns an entry for each.

    Args:
      engine: oneDNN.
      shape: images, their side, channels in and out, side of the kernel and stride.
      dtype: float32 or bfloat16.
      turns: number of times that each form is timed.
    """
    B, side, inputs, outputs, k, stride = map(int, shape.split("x"))
    window = Window((stride,) * 2, (((k - 1) // 2,) * 2,) * 2, (side,) * 2, (k,) * 2)
    random = np.random.default_rng(0)
    sizes = (B, side, side, inputs), (k, k, inputs, outputs), (B, *window.out(), outputs)
    x, w, y = (jnp.asarray(random.normal(size=size), dtype)[None] for size in sizes)
    operations = 2 * y.size * k * k * inputs
    entries = []
    for name, other, (a, b, like) in zip(
        onednn.MAPS, FORMS, ((x, w, y), (y, w, x), (x, y, w)), strict=True
    ):
        ours = jax.jit(partial(onednn.convolve, engine, name, shape=like.shape, window=window))
        theirs = jax.jit(partial(other, window=window))
        calls = partial(theirs, a[0], b[0]), partial(ours, a, b)
        seconds = in_turns(calls, turns)
        rates = [1e-9 * operations / statistics.median(taken) for taken in seconds]
        ratio = statistics.median(pair.ratios(seconds[1], seconds[0]))
        mark = "*" if onednn.engine_for(name, a, b, like, window) else " "
        entries.append(f"{rates[0]:5.0f} {rates[1]:5.0f} {ratio:5.2f}{mark}")
    return entries


def run(config: Config) -> dict[str, Any]:
    """Prints a line for each shape.

    Raises:
      UserError: there is no such shape or dtype, or oneDNN cannot be used.
    """
    shapes = [shape for shape in SHAPES if shape.startswith(tuple(config.only.split(",")))]
    if not shapes:
        raise UserError(f"--only={config.only}: no shape begins so, of {', '.join(SHAPES)}")
    dtypes = config.dtypes.split(",")
    if not {*dtypes} <= {*DTYPES}:
        raise UserError(f"--dtypes={config.dtypes}: choose from {','.join(DTYPES)}")
    engine = onednn.current()
    if not isinstance(engine, onednn.Engine):
        raise UserError(f"there is nothing to compare: {engine or 'the cache is turned off'}")
    print(f"{onednn.describe()}: images x side x channels in x out x kernel x stride")
    heads = (f"{name:>18}" for name in onednn.MAPS)
    print(f"{'':30}{' '.join(heads)} (others, oneDNN, ratio)")
    for dtype in dtypes:
        for shape in shapes:
            entries = compare(engine, shape, dtype, config.turns)
            print(f"{dtype:9}{shape:21}{' '.join(entries)}", flush=True)
    return {}


if __name__ == "__main__":
    cli.main(run, Config)
