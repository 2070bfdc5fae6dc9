"""Checks of numerics on the current device: a part of `accelerator` and of the test suite.

Each check returns a line of text or raises a TrainingError. Errors are relative:
|result - reference| / |reference|, where the reference is computed by NumPy in float64.
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
from jax.typing import ArrayLike

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
from jaxdl.task import State
from jaxdl.tools import fault_injection

# A GPU may compute float32 products in TensorFloat-32, whose mantissa has ten bits.
LIMITS = {"float32": 3e-3, "bfloat16": 3e-2}
ON_CPU = LIMITS | {"float32": 1e-5}
SHAPES = (  # shape of the images, shape of the kernel, stride, padding
    ((8, 16, 16, 32), (3, 3, 32, 64), 1, 1),
    ((8, 17, 17, 16), (3, 3, 16, 32), 2, 1),
    ((4, 28, 28, 3), (7, 7, 3, 8), 2, 3),
    ((4, 2, 2, 64), (3, 3, 64, 64), 1, 1),
    ((4, 8, 8, 64), (1, 1, 64, 32), 1, 0),
)


def held(name: str, dtype: str, pairs: dict[str, tuple[ArrayLike, np.ndarray]]) -> str:
    """Compares results with references; returns a line about the largest relative error.

    Args:
      name: the name of the check.
      dtype: the dtype that decides the limit.
      pairs: pairs of a result and its reference, by name.

    Raises:
      TrainingError: an error exceeds the limit or is not finite.
    """
    limits = ON_CPU if jax.default_backend() == "cpu" else LIMITS
    errors = {
        key: float(np.linalg.norm(np.asarray(result, np.float64) - exact) / np.linalg.norm(exact))
        for key, (result, exact) in pairs.items()
    }
    worst = max(errors, key=lambda key: np.nan_to_num(errors[key], nan=np.inf))
    text = f"{name}, {dtype}: {worst} is off by {errors[worst]:.1e} (limit {limits[dtype]:.0e})"
    if not all(error <= limits[dtype] for error in errors.values()):
        raise TrainingError(text)
    return text


def convolutions(dtype: str) -> str:
    """Checks convolution and both its gradients for several shapes."""
    random = np.random.default_rng(0)
    inputs = [
        (jnp.asarray(random.normal(size=shape), dtype), jnp.asarray(random.normal(size=w), dtype))
        for shape, w, *_ in SHAPES
    ]
    outputs = jax.jit(convolved)(inputs)  # one program for all shapes
    pairs = {}
    for spec, (x, w), results in zip(SHAPES, inputs, outputs, strict=True):
        shape, kernel, stride, padding = spec
        exact_x, exact_w = (np.asarray(a, np.float64) for a in (x, w))
        references = reference(
            exact_x, exact_w, np.asarray(results[0], np.float64), stride, padding
        )
        names = ("result", "gradient of images", "gradient of the kernel")
        for name, result, exact in zip(names, results, references, strict=True):
            pairs[f"{name} of {shape} by {kernel}"] = result, exact
    return held("convolution", dtype, pairs)


def convolved(inputs: list[tuple[jax.Array, jax.Array]]) -> list[tuple[jax.Array, ...]]:
    """Convolves images and kernel of each of SHAPES; returns y and the gradients of |y|^2 / 2."""
    outputs = []
    for (*_, stride, padding), (x, w) in zip(SHAPES, inputs, strict=True):
        strides, pads = (stride, stride), ((padding, padding), (padding, padding))
        y, pullback = jax.vjp(functools.partial(convolve, strides=strides, padding=pads), x, w)
        outputs.append((y, *pullback(y)))
    return outputs


def reference(
    x: np.ndarray, w: np.ndarray, cotangent: np.ndarray, stride: int, padding: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Convolution in NumPy, one pixel of the kernel at a time.

    Args:
      x: the images [B, H, W, I].
      w: the kernel [K, K, I, O].
      cotangent: the gradient of the loss with respect to the result y.
      stride: the stride of both axes.
      padding: the zeros on each side of both axes.

    Returns:
      y, and the gradients of sum(y * cotangent) with respect to x and w.
    """
    _, H, W, _ = x.shape
    rows, columns = cotangent.shape[1:3]
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    y, dx, dw = np.zeros(cotangent.shape), np.zeros(padded.shape), np.zeros(w.shape)
    for i, j in np.ndindex(*w.shape[:2]):
        window = slice(i, i + stride * rows, stride), slice(j, j + stride * columns, stride)
        pixels = padded[:, window[0], window[1]]
        y += pixels @ w[i, j]
        dx[:, window[0], window[1]] += cotangent @ w[i, j].T
        dw[i, j] = np.einsum("bhwi,bhwo->io", pixels, cotangent)
    return y, dx[:, padding : padding + H, padding : padding + W], dw


def attention(dtype: str) -> str:
    """Checks causal attention with four heads, and its directional derivative."""
    B, T, D, heads = 4, 32, 64, 4
    layer = MultiHeadAttention(D, heads, dtype=jnp.dtype(dtype))
    random = np.random.default_rng(1)
    x = jnp.asarray(random.normal(size=(B, T, D)), dtype)
    mask = np.tril(np.ones((T, T), bool))[None]
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), x, x, mask, train=False))
    variables = jax.tree.map(
        lambda a: jnp.asarray(random.normal(0, D**-0.5, a.shape), jnp.float32), shapes
    )
    run: Callable[[jax.Array], jax.Array] = jax.jit(
        lambda x: layer.apply(variables, x, x, mask, train=False)
    )
    y, pullback = jax.vjp(run, x)
    cotangent = jnp.asarray(random.normal(size=y.shape), y.dtype)
    exact_x, exact_cotangent = (np.asarray(a, np.float64) for a in (x, cotangent))
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    direction = random.normal(size=x.shape)

    def exact(x: np.ndarray) -> np.ndarray:
        return by_numpy(params, x, mask[0], heads)

    ends = [np.sum(exact(exact_x + step * direction) * exact_cotangent) for step in (1e-5, -1e-5)]
    slope = np.array((ends[0] - ends[1]) / 2e-5)
    # The slope is a sum of many terms that cancel, so its error is relative to their size.
    gradient = np.asarray(pullback(cotangent)[0], np.float64)
    size = np.linalg.norm(gradient) * np.linalg.norm(direction) / np.sqrt(direction.size)
    pairs = {
        "result": (y, exact(exact_x)),
        "gradient": (np.sum(gradient * direction) - slope + size, np.array(size)),
    }
    return held("attention", dtype, pairs)


def by_numpy(params: Any, x: np.ndarray, mask: np.ndarray, heads: int) -> np.ndarray:
    """Multi-head self-attention of x [B, T, D] in NumPy."""

    def dense(name: str, rows: np.ndarray) -> np.ndarray:
        return rows @ params[name]["kernel"] + params[name]["bias"]

    B, T, D = x.shape
    q, k, v = (
        dense(name, x).reshape(B, T, heads, -1).swapaxes(1, 2) for name in ("query", "key", "value")
    )
    scores = np.where(mask, q @ k.swapaxes(2, 3) / np.sqrt(D // heads), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return dense("out", (weights @ v).swapaxes(1, 2).reshape(B, T, D))


def one_device(experiment: Any = mnist_cnn, **flags: Any) -> str:
    """Checks that ten steps of an experiment have the same losses under jit and under pmap.

    Raises:
      TrainingError: the losses differ.
    """
    first, second = (losses(experiment, parallel=way, **flags) for way in ("jit", "pmap"))
    error = float(np.max(np.abs(first / second - 1)))
    text = f"losses of {len(first)} steps under jit and pmap differ by {error:.1e}"
    if not error < 1e-3:
        raise TrainingError(text)
    return text


def losses(experiment: Any, **flags: Any) -> np.ndarray:
    """Returns the training losses of ten steps, on all devices of this process."""
    config = experiment.Config(dataset="embedded", batch_size=16, **flags)
    data = experiment.load(config)
    task = experiment.build(config, data.spec)
    order = jnp.arange(data.spec.num_train)

    @jax.jit
    def step(state: State, split: batches.Split) -> tuple[State, jax.Array]:
        batch = batches.take(split, order, state.step, config.batch_size)
        state, metrics = task.step(state, batch)
        return state, metrics["loss"][0] / metrics["loss"][1]

    state = jax.jit(task.init)(jax.random.key(0))
    values = []
    for _ in range(10):
        state, loss = step(state, data.train)
        values.append(float(loss))
    return np.array(values)


def checkpoints() -> str:
    """Checks that a checkpoint restores the same bits, and that a damaged one is refused.

    Raises:
      TrainingError: the restored state differs, or the damaged checkpoint was restored.
    """
    random = np.random.default_rng(2)
    state = {
        "step": jnp.int32(7),
        "key": jax.random.key(3),
        "params": jnp.asarray(random.normal(size=(64, 257)), jnp.float32),
        "half": jnp.asarray(random.normal(size=(33,)), jnp.bfloat16),
    }
    best = {"step": 0, "value": None, "since": 0, "than": None}
    progress = {"best": best, "step": 7, "anchor": [0, 0], "timed": [0, 0.0]}
    record = {name: kind() for name, kind in RECORD.items()} | progress
    with tempfile.TemporaryDirectory() as name:
        saved = Checkpoints(Path(name))
        saved.save(7, state, record, "", ())
        saved.close()
        restored = saved.restore(7, state).state
        devices = {device for leaf in jax.tree.leaves(restored) for device in leaf.devices()}
        if tree.digest(restored) != tree.digest(state) or devices != {jax.devices()[0]}:
            raise TrainingError(f"a state was restored with other bits, or on {devices}")
        damage = fault_injection.damage(Path(name) / "7", pyrandom.Random(0))
        with contextlib.suppress(DamagedError):
            saved.restore(7, state)
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
    """Runs all checks."""
    hardware = performance.measured_on()
    for name, check in CHECKS.items():
        measure = functools.partial(_with_hardware, check, hardware)
        report.attempt(f"checks/{name}", measure)


def _with_hardware(
    check: Callable[[], str], hardware: dict[str, str]
) -> tuple[str, dict[str, str]]:
    return check(), hardware


if __name__ == "__main__":
    cli.set_up_jax()
    main(Report(json.loads(sys.argv[1])))
