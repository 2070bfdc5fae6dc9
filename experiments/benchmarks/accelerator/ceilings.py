"""Peak rates of an accelerator, measured by large matrix products and a large copy.

    python -m experiments.benchmarks.accelerator.ceilings '{"size": 8192, "bytes": 1073741824}'

This is a side of `pair` that only reports. `steps` starts this process, whose end frees the device.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks import pair, performance
from jaxdl import cli

REPEATS = 20  # products or copies in a call
CALLS = 5  # timed calls, after one that is not timed
COMMAND = "python -m experiments.benchmarks.accelerator --only=steps/ceilings"


def seconds(call: Callable[[jax.Array], jax.Array], x: jax.Array) -> list[float]:
    """Returns the seconds per repeat of each timed call."""
    x = jax.block_until_ready(call(x))
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        x = jax.block_until_ready(call(x))
        times.append((time.perf_counter() - began) / REPEATS)
    return times


@functools.partial(jax.jit, donate_argnums=0)
def products(x: jax.Array, w: jax.Array) -> jax.Array:
    """Multiplies x [N, N] by w [N, N] REPEATS times, one after the other."""
    return jax.lax.fori_loop(0, REPEATS, lambda _, x: x @ w, x)


@functools.partial(jax.jit, donate_argnums=0)
def copies(x: jax.Array) -> jax.Array:
    """Passes over x [N] REPEATS times; each pass reads and writes all of it."""

    def one_pass(n: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.optimization_barrier(x + n.astype(x.dtype))  # keeps passes from merging

    return jax.lax.fori_loop(0, REPEATS, one_pass, x)


def measure(size: int, amount: int) -> dict[str, Any]:
    """Measures the peak rates.

    Args:
      size: N of the products of [N, N].
      amount: the number of bytes to copy.

    Returns:
      `peaks`, in operations or bytes per second, and `entries`, the figures to publish.
    """
    rates = {}
    for dtype in (jnp.bfloat16, jnp.float32):
        keys = jax.random.split(jax.random.key(0))
        x, w = (jax.random.normal(key, (size, size), dtype) for key in keys)
        w = w / jnp.sqrt(size).astype(dtype)  # keeps the scale of x
        times = seconds(functools.partial(products, w=w), x)
        rates[jnp.dtype(dtype).name] = [2 * size**3 / time for time in times]
    times = seconds(copies, jnp.zeros(amount // 4, jnp.float32))
    rates["copy"] = [2 * amount / time for time in times]
    entries = []
    for name, values in rates.items():
        case = f"a {name} product of {size} x {size}" if name != "copy" else "a copy, both ways"
        unit = "TB/s" if name == "copy" else "TFLOP/s"
        scaled = [value / 1e12 for value in values]
        entries.append(["costs", performance.cost(case, scaled, unit, COMMAND)])
    peaks = {name: pair.spread(values)["median"] for name, values in rates.items()}
    return {"peaks": peaks, "entries": entries}


if __name__ == "__main__":
    cli.set_up_jax()
    spec = json.loads(sys.argv[1])
    pair.serve(measure(spec["size"], spec["bytes"]))
