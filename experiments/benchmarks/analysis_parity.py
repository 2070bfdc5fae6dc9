"""Attacks, calibration error and curvature of the same network here and in PyTorch's libraries.

    python -m experiments.benchmarks.analysis_parity --torch_python=PYTHON

PYTHON is an interpreter with torch, foolbox, netcal and hessian-eigenthings. The network has random
weights, converted by `torch_weights`. FGSM and PGD start at the images. A difference is relative to
the largest absolute value of the other side, of attacks to 255 levels. The exit status is 1 if one
is above its tolerance.
"""

import dataclasses
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import attacks, cli, losses
from jaxdl.analysis import calibration, hessian
from jaxdl.config import RunConfig, flag
from jaxdl.errors import TrainingError, UserError
from jaxdl.export import torch_weights
from jaxdl.models.cnn import CNN
from jaxdl.nn.pooling import POOLS

SIDE, EXAMPLES, CLASSES = 12, 256, 5
EPSILON, LENGTH, STEPS = 16.0, 2.0, 10  # levels
ITERATIONS, OF_HESSIAN = 60, 64  # steps of Lanczos, and examples of the Hessian's loss
TOLERANCES = {
    **{"logits": 1e-5, "ece": 1e-5, "fgsm": 1e-5, "pgd": 1e-5, "pgd_2": 1e-5},
    **{"hessian": 1e-4, "dense_hessian": 1e-4},
}


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Interpreter of the other side."""

    torch_python: str = flag(
        "", "Python with torch, foolbox, netcal and hessian-eigenthings", runtime=True
    )


def ours(model: CNN, variables: Any, x: jax.Array, labels: jax.Array) -> dict[str, np.ndarray]:
    """Results of this package by name, with the axes of `torch_analysis`."""

    def logits_of(variables: Any, x: jax.Array) -> Any:
        return model.apply(variables, x / 255, train=False)

    def loss(x: jax.Array) -> jax.Array:
        return losses.cross_entropy(logits_of(variables, x), labels)

    def mean_loss(params: Any) -> jax.Array:
        logits = logits_of({"params": params}, x[:OF_HESSIAN])
        return jnp.mean(losses.cross_entropy(logits, labels[:OF_HESSIAN]))

    @partial(jax.jit, static_argnums=1)
    def descent(x: jax.Array, norm: str) -> jax.Array:
        return attacks.ascend(loss, x, x, EPSILON, LENGTH, steps=STEPS, norm=norm)

    logits = np.asarray(logits_of(variables, x))
    images = {
        "fgsm": jax.jit(lambda x: attacks.fgsm(loss, x, EPSILON))(x),
        "pgd": descent(x, "inf"),
        "pgd_2": descent(x, "2"),
    }
    matrix, size = hessian.products(mean_loss, variables["params"])
    start = hessian.random_vector(jax.random.key(0), size)
    largest = np.sort(hessian.lanczos(matrix, start, ITERATIONS).values)[::-1][:5]
    return {
        "logits": logits,
        "ece": np.asarray(calibration.scores(logits, np.asarray(labels), "logits")["ece"]),
        **{name: np.moveaxis(np.asarray(found), -1, 1) for name, found in images.items()},
        "hessian": largest,
        "dense_hessian": largest,
    }


def theirs(python: str, given: dict[str, Any]) -> dict[str, np.ndarray]:
    """Results of `torch_analysis`.

    Raises:
      UserError: the interpreter fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("in.npz", "out.npz")]
        np.savez(paths[0], allow_pickle=False, **given)
        script = str(Path(__file__).with_name("torch_analysis.py"))
        done = subprocess.run([python, script, *paths], capture_output=True, encoding="utf-8")
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
            raise UserError(f"{python}: {lines[-1]}")
        with np.load(paths[1], allow_pickle=False) as file:
            return dict(file)


def run(config: Config) -> dict[str, float]:
    """Compares both sides; returns the difference of each result.

    Raises:
      UserError: no interpreter is named, or it fails.
      TrainingError: a difference is above its tolerance.
    """
    if not config.torch_python:
        raise UserError(
            "--torch_python: name a Python with torch, foolbox, netcal and hessian-eigenthings"
        )
    random = np.random.RandomState(config.seed)
    x = random.uniform(0, 255, (EXAMPLES, SIDE, SIDE, 1)).astype(np.float32)
    labels = random.randint(0, CLASSES, EXAMPLES).astype(np.int32)
    model = CNN(CLASSES, channels=(4, 6), hidden=16, pool=POOLS["average"])
    variables = model.init(jax.random.key(config.seed), x, train=False)
    variables = jax.tree.map(
        lambda a: a + 0.2 * random.normal(size=a.shape).astype(np.float32), variables
    )
    tensors = torch_weights.to_torch(torch_weights.flatten(variables))
    given = {
        **{"x": np.moveaxis(x, -1, 1), "labels": labels, "epsilon": EPSILON, "length": LENGTH},
        **{"steps": STEPS, "iterations": ITERATIONS, "of_hessian": OF_HESSIAN, **tensors},
    }
    other = theirs(config.torch_python, given)
    found = ours(model, variables, jnp.asarray(x), jnp.asarray(labels))
    differences = {}
    for name, value in other.items():
        scale = 255 if name in ("fgsm", "pgd", "pgd_2") else np.max(np.abs(value))
        differences[name] = float(np.max(np.abs(found[name] - value)) / scale)
    if wrong := [name for name, value in differences.items() if not value <= TOLERANCES[name]]:
        raise TrainingError(f"{differences}: above the tolerance of {', '.join(wrong)}")
    return differences


if __name__ == "__main__":
    cli.main(run, Config)
