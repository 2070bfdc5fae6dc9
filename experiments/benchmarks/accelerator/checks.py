"""Numerics on the device at hand: a part of `accelerator`, and of the test suite.

Each check returns a line, or raises TrainingError. Errors are relative: |result - reference| over
|reference|, with a reference of NumPy in float64.
"""

import contextlib
import functools
import json
import random as pyrandom
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import mnist_cnn
from experiments.benchmarks import performance
from experiments.benchmarks.accelerator.report import Report
from jaxdl import cli, tree
from jaxdl.data import batches
from jaxdl.errors import TrainingError
from jaxdl.nn.attention import MultiHeadAttention
from jaxdl.nn.convolution import convolve
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.checkpoint_record import RECORD, DamagedError
from jaxdl.tools import fault_injection

# A GPU may compute float32 products in TensorFloat-32, of ten bits.
LIMITS = {"float32": 3e-3, "bfloat16": 3e-2}
ON_CPU = LIMITS | {"float32": 1e-5}
SHAPES = (  # images, kernel, stride, padding
    ((8, 16, 16, 32), (3, 3, 32, 64), 1, 1),
    ((8, 17, 17, 16), (3, 3, 16, 32), 2, 1),
    ((4, 28, 28, 3), (7, 7, 3, 8), 2, 3),
    ((4, 2, 2, 64), (3, 3, 64, 64), 1, 1),
    ((4, 8, 8, 64), (1, 1, 64, 32), 1, 0),
)


def held(name: str, dtype: str, pairs: dict[str, tuple[Any, np.ndarray]]) -> str:
    """The largest relative error of results beside references.

    Raises:
      TrainingError: one is beyond its limit, or not finite.
    """
    limits = ON_CPU if jax.default_backend() == "cpu" else LIMITS
    errors = {
        what: float(np.linalg.norm(np.asarray(one, np.float64) - other) / np.linalg.norm(other))
        for what, (one, other) in pairs.items()
    }
    worst = max(errors, key=lambda what: np.nan_to_num(errors[what], nan=np.inf))
    text = f"{name}, {dtype}: {worst} is off by {errors[worst]:.1e} (limit {limits[dtype]:.0e})"
    if not all(error <= limits[dtype] for error in errors.values()):
        raise TrainingError(text)
    return text


def convolutions(dtype: str) -> str:
    """Convolution and both gradients; the most inexact of several shapes."""
    random = np.random.default_rng(0)
    drawn = [
        (jnp.asarray(random.normal(size=shape), dtype), jnp.asarray(random.normal(size=w), dtype))
        for shape, w, *_ in SHAPES
    ]
    found = jax.jit(convolved)(drawn)  # one program for all
    pairs = {}
    for (shape, kernel, stride, padding), (x, w), results in zip(SHAPES, drawn, found, strict=True):
        exact_x, exact_w = (np.asarray(a, np.float64) for a in (x, w))
        exact = reference(exact_x, exact_w, np.asarray(results[0], np.float64), stride, padding)
        names = ("result", "gradient of images", "gradient of the kernel")
        for name, one, other in zip(names, results, exact, strict=True):
            pairs[f"{name} of {shape} by {kernel}"] = one, other
    return held("convolution", dtype, pairs)


def convolved(drawn: list[tuple[jax.Array, jax.Array]]) -> list[tuple[jax.Array, ...]]:
    """For images and kernel of each of SHAPES: y, and the gradients of half its squared norm."""
    found = []
    for (*_, stride, padding), (x, w) in zip(SHAPES, drawn, strict=True):
        strides, pads = (stride, stride), ((padding, padding), (padding, padding))
        y, back = jax.vjp(functools.partial(convolve, strides=strides, padding=pads), x, w)
        found.append((y, *back(y)))
    return found


def reference(
    x: np.ndarray, w: np.ndarray, given: np.ndarray, stride: int, padding: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y, and the gradients of sum(y * given) by x and w, one pixel of the kernel at a time."""
    _, H, W, _ = x.shape
    rows, columns = given.shape[1:3]
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    y, dx, dw = np.zeros(given.shape), np.zeros(padded.shape), np.zeros(w.shape)
    for i, j in np.ndindex(*w.shape[:2]):
        places = slice(i, i + stride * rows, stride), slice(j, j + stride * columns, stride)
        seen = padded[:, places[0], places[1]]
        y += seen @ w[i, j]
        dx[:, places[0], places[1]] += given @ w[i, j].T
        dw[i, j] = np.einsum("bhwi,bhwo->io", seen, given)
    return y, dx[:, padding : padding + H, padding : padding + W], dw


def attention(dtype: str) -> str:
    """Causal attention of four heads, and its gradient in a direction."""
    B, T, D, heads = 4, 32, 64, 4
    layer = MultiHeadAttention(D, heads, dtype=jnp.dtype(dtype))
    random = np.random.default_rng(1)
    x = jnp.asarray(random.normal(size=(B, T, D)), dtype)
    mask = np.tril(np.ones((T, T), bool))[None]
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), x, x, mask, train=False))
    variables = jax.tree.map(
        lambda a: jnp.asarray(random.normal(0, D**-0.5, a.shape), jnp.float32), shapes
    )
    run: Callable[[Any], jax.Array] = jax.jit(
        lambda x: layer.apply(variables, x, x, mask, train=False)
    )
    y, back = jax.vjp(run, x)
    given = jnp.asarray(random.normal(size=y.shape), y.dtype)
    exact_x, exact_given = (np.asarray(a, np.float64) for a in (x, given))
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    direction = random.normal(size=x.shape)

    def exact(x: np.ndarray) -> np.ndarray:
        return by_numpy(params, x, mask[0], heads)

    ends = [np.sum(exact(exact_x + step * direction) * exact_given) for step in (1e-5, -1e-5)]
    slope = np.array((ends[0] - ends[1]) / 2e-5)
    # The slope is a sum of many terms that cancel: its error counts against their size.
    gradient = np.asarray(back(given)[0], np.float64)
    size = np.linalg.norm(gradient) * np.linalg.norm(direction) / np.sqrt(direction.size)
    pairs = {
        "result": (y, exact(exact_x)),
        "gradient": (np.sum(gradient * direction) - slope + size, np.array(size)),
    }
    return held("attention", dtype, pairs)


def by_numpy(params: Any, x: np.ndarray, mask: np.ndarray, heads: int) -> np.ndarray:
    """Attention of x [B, T, D] to itself in float64."""

    def through(name: str, rows: np.ndarray) -> np.ndarray:
        return rows @ params[name]["kernel"] + params[name]["bias"]

    B, T, D = x.shape
    q, k, v = (
        through(name, x).reshape(B, T, heads, -1).swapaxes(1, 2)
        for name in ("query", "key", "value")
    )
    scores = np.where(mask, q @ k.swapaxes(2, 3) / np.sqrt(D // heads), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return through("out", (weights @ v).swapaxes(1, 2).reshape(B, T, D))


def one_device(experiment: Any = mnist_cnn, **flags: Any) -> str:
    """Ten steps of an experiment have the same losses under jit and under pmap.

    Raises:
      TrainingError: they have not.
    """
    first, second = (losses(experiment, parallel=way, **flags) for way in ("jit", "pmap"))
    error = float(np.max(np.abs(first / second - 1)))
    text = f"losses of {len(first)} steps under jit and pmap differ by {error:.1e}"
    if not error < 1e-3:
        raise TrainingError(text)
    return text


def losses(experiment: Any, **flags: Any) -> np.ndarray:
    """The training losses of ten steps, on all devices of this process."""
    config = experiment.Config(dataset="embedded", batch_size=16, **flags)
    data = experiment.load(config)
    task = experiment.build(config, data.spec)
    order = jnp.arange(data.spec.num_train)

    @jax.jit
    def step(state: Any, split: batches.Split) -> tuple[Any, jax.Array]:
        batch = batches.take(split, order, state.step, config.batch_size)
        state, metrics = task.step(state, batch)
        return state, metrics["loss"][0] / metrics["loss"][1]

    state, found = jax.jit(task.init)(jax.random.key(0)), []
    for _ in range(10):
        state, loss = step(state, data.train)
        found.append(float(loss))
    return np.array(found)


def checkpoints() -> str:
    """A state comes back from disk to the device bit by bit, and a damaged one is refused.

    Raises:
      TrainingError: it does not, or is not.
    """
    random = np.random.default_rng(2)
    state = {
        "step": jnp.int32(7),
        "key": jax.random.key(3),
        "params": jnp.asarray(random.normal(size=(64, 257)), jnp.float32),
        "half": jnp.asarray(random.normal(size=(33,)), jnp.bfloat16),
    }
    best = {"step": 0, "value": None, "since": 0, "than": None}
    said = {"best": best, "step": 7, "anchor": [0, 0], "timed": [0, 0.0]}
    record = {name: kind() for name, kind in RECORD.items()} | said
    with tempfile.TemporaryDirectory() as name:
        kept = Checkpoints(Path(name))
        kept.save(7, state, record, "", ())
        kept.close()
        again = kept.restore(7, state).state
        devices = {device for leaf in jax.tree.leaves(again) for device in leaf.devices()}
        if tree.digest(again) != tree.digest(state) or devices != {jax.devices()[0]}:
            raise TrainingError(f"a state came back with other bits, or on {devices}")
        damage = fault_injection.damage(Path(name) / "7", pyrandom.Random(0))
        with contextlib.suppress(DamagedError):
            kept.restore(7, state)
            raise TrainingError(f"a damaged checkpoint was restored: {damage}")
    return f"the same bits on {devices.pop().device_kind}; refused after {damage}"


CHECKS: dict[str, Callable[[], str]] = {
    "convolution": lambda: convolutions("float32"),
    "convolution bfloat16": lambda: convolutions("bfloat16"),
    "attention": lambda: attention("float32"),
    "attention bfloat16": lambda: attention("bfloat16"),
    "jit and pmap": lambda: one_device(image_size=8, dropout=0.0, norm="layer"),
    "checkpoints": checkpoints,
}


def main(report: Report) -> None:
    """Makes all checks."""
    of = performance.measured_on()
    for name, check in CHECKS.items():
        report.attempt(f"checks/{name}", lambda check=check: (check(), of))  # type: ignore[misc]


if __name__ == "__main__":
    cli.set_up_jax()
    main(Report(json.loads(sys.argv[1])))
