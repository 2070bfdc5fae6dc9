"""Overhead of the training loop and of kernel launches: a part of `accelerator`.

The loop is measured on steps of 0.1 to 100 ms: softmax regression, made longer by matrix products.
The cost of launches is measured in two ways on LeNet-5's step in a loop inside XLA: with command
buffers, which record kernels and start them together, and with a batch so small that little else
remains.
"""

import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks import beside_torch, host_overhead, pair, performance
from experiments.benchmarks.accelerator.report import Report
from experiments.benchmarks.cases import Case
from jaxdl import cli
from jaxdl.config import RunConfig
from jaxdl.data import images

LENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # lengths of a step, in seconds
SIZE = 256  # rows and columns of the matrices in the products
COMMAND = "python -m experiments.benchmarks.accelerator --only=loop"
BUFFERS = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,WHILE"
RECORDED = f"--xla_gpu_enable_command_buffer={BUFFERS} --xla_gpu_graph_min_graph_size=1"
LIMIT = 60  # time limit of a measurement, in seconds


class Busy(host_overhead.SoftmaxRegression):
    """Softmax regression that also computes a number of matrix products in each training step."""

    def __init__(self, products: int):
        self._products = products

    def apply(self, variables: Any, x: jax.Array, **kwargs: Any) -> Any:
        """Returns the result of softmax regression; the products in training do not change it."""
        if kwargs["train"]:
            unused = work(x.ravel()[0].astype(jnp.float32), self._products)
            x = x + 1e-30 * jax.lax.stop_gradient(unused)
        return super().apply(variables, x, **kwargs)


def work(seed: jax.Array, products: int) -> jax.Array:
    """Computes so many products of [SIZE, SIZE] one after the other; returns one entry."""
    w = jnp.full((SIZE, SIZE), 1 / SIZE)
    x = jax.lax.stop_gradient(seed) + w
    return jax.lax.fori_loop(0, products, lambda _, x: x @ w, x)[0, 0]


def product_seconds(products: int) -> float:
    """Returns the seconds per product in a loop of so many products."""
    call = jax.jit(functools.partial(work, products=products))
    call(jnp.float32(0)).block_until_ready()
    began = time.perf_counter()
    call(jnp.float32(1)).block_until_ready()
    return (time.perf_counter() - began) / products


def beside_bare(length: float, seconds: float, turns: int) -> tuple[str, dict[str, Any]]:
    """Compares the steps of a run with those of a bare loop.

    Args:
      length: the approximate length of a step, in seconds.
      seconds: the approximate length of a turn, in seconds.
      turns: the number of times that each side is timed.
    """
    digits = images.load("embedded", image_size=8)
    products = max(1, round(length / product_seconds(1000)))
    steps = max(10, round(seconds / length))
    config = RunConfig(batch_size=16, num_steps=steps, log_every=50)
    build = functools.partial(host_overhead.softmax, model=Busy(products))
    ours, bare = zip(*host_overhead.times(config, build, digits, turns), strict=True)
    ratios = pair.ratios(ours, bare)
    milliseconds = 1e3 * pair.spread(bare)["median"]
    case = f"the loop, a step of {1e3 * length:g} ms"
    entry = performance.cost(case, ratios, "times a bare loop's", COMMAND)
    ratio = entry["value"]["median"]
    text = f"{ratio:.3f} times a bare loop's, whose step takes {milliseconds:.3g} ms"
    return text, {"entries": [["costs", entry]]}


@contextlib.contextmanager
def lenet(batch_size: int, steps: int, flags: str = "") -> Iterator[pair.Side]:
    """Starts a side that trains LeNet-5 in a loop inside XLA.

    Args:
      batch_size: the number of images in a step.
      steps: the number of steps in a turn.
      flags: XLA flags to add to those of the environment.

    Yields:
      The side.
    """
    case = Case("lenet5", batch_size, "float32", steps, "torch")
    variables = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
    with beside_torch.sides(case, ("jaxdl",), "", variables) as (side,):
        yield side


def launches(
    description: str, batch_size: int, steps: int, turns: int, flags: str = ""
) -> tuple[str, dict[str, Any]]:
    """Compares LeNet-5's step with that of a plain one, of 128 images without extra flags.

    XLA ends a process that passes it an unknown flag, which is an error here.

    Args:
      description: the words that describe the variant in the results.
      batch_size: the batch size of the variant.
      steps: the number of steps in a turn.
      turns: the number of times that each side is timed.
      flags: the XLA flags of the variant.
    """
    with lenet(128, steps) as plain, lenet(batch_size, steps, flags) as variant:
        plain.name, variant.name = "plain", "variant"
        seconds = pair.take_turns([plain, variant], turns)
    ratios = pair.ratios(seconds["variant"], seconds["plain"])
    case = f"LeNet-5's step in a loop inside XLA, {description}"
    entry = performance.cost(case, ratios, "of that of 128 images without flags", COMMAND)
    milliseconds = 1e3 * pair.spread(seconds["plain"])["median"]
    text = f"{entry['value']['median']:.3f} of a plain step's {milliseconds:.3g} ms"
    return text, {"entries": [["costs", entry]]}


def main(report: Report) -> None:
    """Measures the loop for each length of a step, and then launches."""
    turns, seconds, steps = (2, 0.02, 5) if report.rehearse else (3, 0.5, 400)
    for length in LENGTHS[:1] if report.rehearse else LENGTHS:
        measure = functools.partial(beside_bare, length, seconds, turns)
        report.attempt(f"loop/{1e3 * length:g} ms", measure, limit=LIMIT)
    if not report.rehearse:  # a CPU has no command buffers
        recorded = functools.partial(launches, "with command buffers", 128, steps, turns, RECORDED)
        report.attempt("loop/launches, command buffers", recorded, limit=LIMIT)
    tiny = functools.partial(launches, "of 8 images", 8, steps, turns)
    report.attempt("loop/launches, batch of 8", tiny, limit=LIMIT)


if __name__ == "__main__":
    cli.set_up_jax()
    main(Report(json.loads(sys.argv[1])))
