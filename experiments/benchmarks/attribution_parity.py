"""Attributions of the same network here and in Captum: the largest difference of each method.

    python -m experiments.benchmarks.attribution_parity --torch_python=PYTHON

PYTHON is an interpreter with torch and captum. A difference is relative to the largest absolute
value of the method. The exit status is 1 if one is above 1e-5.
"""

import dataclasses
import subprocess
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import cli
from jaxdl.analysis import attribution, layers
from jaxdl.analysis.guided import guided
from jaxdl.config import RunConfig, flag
from jaxdl.errors import TrainingError, UserError
from jaxdl.models.cnn import CNN
from jaxdl.nn.pooling import POOLS
from jaxdl.task import Predict

TOLERANCE = 1e-5
SIDE, EXAMPLES, CLASSES = 9, 8, 5


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Interpreter of the other side."""

    torch_python: str = flag("", "Python with torch and captum")


def ours(predict: Predict, state: object, x: jax.Array, chosen: jax.Array) -> dict[str, np.ndarray]:
    """Attributions of all methods by name, with the axes of `torch_attribution`."""

    def pick(logits: jax.Array) -> jax.Array:
        return jnp.take_along_axis(logits, chosen[:, None], axis=1)[:, 0]

    def score(x: jax.Array) -> jax.Array:
        return pick(predict.of_inputs(state, x))

    activation, rest = layers.split_at(predict, state, x, "Conv_1")
    slope = attribution.gradient(lambda a: pick(rest(a)), activation)
    windows = attribution.window_masks((SIDE, SIDE), 3, 2)
    pixels = attribution.group_masks(np.arange(SIDE * SIDE).reshape(SIDE, SIDE, 1))
    found = {
        "gradient": attribution.gradient(score, x),
        "gradient_x_input": attribution.gradient_x_input(score, x),
        "integrated": attribution.integrated_gradients(score, x, 0.0, 32).values,
        "guided": attribution.gradient(guided(score), x),
        "grad_cam": attribution.grad_cam(activation, slope)[..., None],
        "occlusion": attribution.ablation(score, x, 0.0, windows),
        "ablation": attribution.ablation(score, x, 0.0, pixels),
    }
    return {name: np.moveaxis(np.asarray(value), -1, 1) for name, value in found.items()}


def run(config: Config) -> dict[str, float]:
    """Compares both sides; returns the difference of each method.

    Raises:
      UserError: no interpreter is named, or it fails.
      TrainingError: a difference is above the tolerance.
    """
    if not config.torch_python:
        raise UserError("--torch_python: name a Python with torch and captum")
    random = np.random.RandomState(config.seed)
    x = random.normal(size=(EXAMPLES, SIDE, SIDE, 1)).astype(np.float32)
    chosen = random.randint(0, CLASSES, EXAMPLES).astype(np.int32)
    model = CNN(CLASSES, channels=(4, 6), hidden=16, pool=POOLS["average"])
    state = model.init(jax.random.key(config.seed), x, train=False)
    state = jax.tree.map(lambda a: a + 0.1 * random.normal(size=a.shape).astype(np.float32), state)
    predict = Predict(
        lambda batch: batch["image"],
        lambda state, x, **options: model.apply(state, x, train=False, **options),
    )
    given = {"x": np.moveaxis(x, -1, 1), "chosen": chosen}
    for name, layer in state["params"].items():
        given |= {name: np.asarray(layer["kernel"]), f"{name}_bias": np.asarray(layer["bias"])}
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("in.npz", "out.npz")]
        np.savez(paths[0], allow_pickle=False, **given)
        script = str(Path(__file__).with_name("torch_attribution.py"))
        done = subprocess.run(
            [config.torch_python, script, *paths], capture_output=True, encoding="utf-8"
        )
        if done.returncode:
            raise UserError(f"{config.torch_python}: {done.stderr.strip().splitlines()[-1]}")
        theirs = dict(np.load(paths[1], allow_pickle=False))
    found = ours(predict, state, jnp.asarray(x), jnp.asarray(chosen))
    differences = {
        name: float(np.max(np.abs(found[name] - theirs[name])) / np.max(np.abs(theirs[name])))
        for name in theirs
    }
    if max(differences.values()) > TOLERANCE:
        raise TrainingError(f"{differences}: above {TOLERANCE}")
    return differences


if __name__ == "__main__":
    cli.main(run, Config)
