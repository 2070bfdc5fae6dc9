"""Outputs of the same weights in PyTorch and in jaxdl, in both directions.

    python -m experiments.benchmarks.torch_parity --torch_python=PYTHON
    python -m experiments.benchmarks.torch_parity --only=resnet50,vit_b_16 --torch_python=PYTHON

For each model, random weights of torchvision (`theirs`) are loaded here, and random weights from
here (`ours`) are loaded there, by `jaxdl.export.torch_weights`. Both sides compute float32 logits
of the same images, 224x224 pixels for the full-size models. The table has the greatest difference
relative to the greatest absolute logit. PYTHON is an interpreter with torch, torchvision and
safetensors.
"""

import dataclasses
import json
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks.beside_torch import command
from experiments.benchmarks.random_weights import fill
from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.errors import TrainingError, UserError
from jaxdl.export import tensor_file, torch_weights
from jaxdl.models.resnet import ResNet
from jaxdl.models.rnn_classifier import SequenceClassifier
from jaxdl.models.vgg import VGG
from jaxdl.models.vit import ViT
from jaxdl.nn.norm import NORMS

SMALLEST_SPREAD = 1e-3  # of the logits of two images, relative; less would compare only biases


class Case(NamedTuple):
    """Model that both sides have.

    Attributes:
      model: Flax module.
      size: pixels per side of the images; 0: tokens.
    """

    model: Any
    size: int = 224


def cases() -> dict[str, Case]:
    """Models by torchvision's names, and small ones by those of `torch_reference`."""
    table = {}
    for depth in (11, 13, 16, 19):
        for suffix, norm in (("", "none"), ("_bn", "batch")):
            model = VGG(1000, depth=depth, norm=NORMS[norm], hidden=(4096, 4096), pooled=7)
            table[f"vgg{depth}{suffix}"] = Case(model)
    for depth in (18, 34, 50):
        table[f"resnet{depth}"] = Case(ResNet(1000, depth=depth))
    vit = partial(ViT, patch=16, class_token=True)
    table["vit_b_16"] = Case(vit(1000, layers=12, heads=12, features=768, hidden=3072))
    vgg = VGG(3, depth=11, hidden=(4096, 4096), pooled=7, width_multiplier=1 / 16)
    table["small_vgg"] = Case(vgg, 96)
    for depth in (18, 50):
        table[f"small_resnet{depth}"] = Case(ResNet(3, depth=depth), 64)
    table["small_vit"] = Case(vit(3, layers=2, heads=2, features=8, hidden=12), 32)
    for cell in ("rnn", "lstm", "gru"):
        table[cell] = Case(SequenceClassifier(3, 11, 6, cell, features=5, layers=2), 0)
    return table


def batch(size: int) -> np.ndarray:
    """Two normalised images [2, size, size, 3], or two rows of seven tokens if `size` is 0."""
    random = np.random.RandomState(1)
    if size == 0:
        return random.randint(1, 11, (2, 7)).astype(np.int32)
    return (random.random_sample((2, size, size, 3)) * 4 - 2).astype(np.float32)


def channels_first(x: np.ndarray) -> np.ndarray:
    """PyTorch's layout of images, or its type of tokens."""
    return x.transpose(0, 3, 1, 2).copy() if x.ndim == 4 else x.astype(np.int64)


def variables_like(model: Any, x: np.ndarray) -> Any:
    """Shapes of a model's variables."""
    return jax.eval_shape(
        lambda key: model.init({"params": key}, x, train=False), jax.random.key(0)
    )


def error(a: np.ndarray, b: np.ndarray) -> float:
    """Greatest difference of outputs [2, K], relative to the greatest absolute value of `b`.

    Raises:
      UserError: the outputs hardly depend on the input, so that equal ones would show nothing.
    """
    greatest = np.abs(b).max()
    if not np.abs(b[0] - b[1]).max() > SMALLEST_SPREAD * greatest:
        raise UserError("outputs hardly depend on the input: draw other weights")
    return float(np.abs(a - b).max() / greatest)


class Comparison(NamedTuple):
    """Result of both directions.

    Attributes:
      theirs: error of PyTorch's weights, loaded here.
      ours: error of weights from here, loaded in PyTorch.
      shapes: shapes of PyTorch's tensors by name.
      outputs: PyTorch's outputs for its own weights, [2, K].
    """

    theirs: float
    ours: float
    shapes: dict[str, list[int]]
    outputs: np.ndarray


def compare(name: str, case: Case, python: str, folder: Path) -> Comparison:
    """Errors of the weights of PyTorch loaded here, and of those of jaxdl loaded there.

    Args:
      name: name of the model in `torch_reference`.
      case: the same model here.
      python: interpreter that has PyTorch.
      folder: empty folder for the files of both sides.

    Raises:
      UserError: PyTorch's side fails.
    """
    x = batch(case.size)
    like = variables_like(case.model, x)
    leaves = torch_weights.flatten(like)
    ours = torch_weights.unflatten(fill({path: leaf.shape for path, leaf in leaves.items()}))
    torch_weights.save_torch(ours, folder / "ours.safetensors")
    np.savez(folder / "input.npz", allow_pickle=False, x=channels_first(x))
    spec = json.dumps({"model": name, "folder": str(folder)})
    side = subprocess.run(
        command("torch", spec, python, "reference"), capture_output=True, encoding="utf-8"
    )
    if side.returncode:
        raise UserError(f"PyTorch's {name}: {side.stderr.strip().splitlines()[-1]}")
    with np.load(folder / "outputs.npz", allow_pickle=False) as file:
        wanted = dict(file)
    tensors = tensor_file.read(folder / "theirs.safetensors")
    theirs = torch_weights.unflatten(torch_weights.from_torch(tensors, like))
    apply = jax.jit(lambda variables: case.model.apply(variables, x, train=False))
    errors = [
        error(np.asarray(apply(variables)), wanted[key])
        for key, variables in (("theirs", theirs), ("ours", ours))
    ]
    here, there = errors
    return Comparison(here, there, json.loads(side.stdout), wanted["theirs"])


def record(path: Path, results: dict[str, Comparison]) -> None:
    """Writes names and shapes of PyTorch's tensors as JSON, and the outputs of small models."""
    models: dict[str, Any] = {}
    for name, result in results.items():
        sizes = [f"{key} {'x'.join(map(str, size))}" for key, size in result.shapes.items()]
        is_small = result.outputs.shape[1] <= 3
        models[name] = {"tensors": sizes} | (
            {"outputs": result.outputs.tolist()} if is_small else {}
        )
    path.write_text(json.dumps(models, indent=0) + "\n", encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Models to compare."""

    torch_python: str = flag("", "interpreter that has torchvision; empty: this one", runtime=True)
    only: str = flag("", "comma-separated names of models; empty: all")
    tolerance: float = flag(1e-4, "greatest relative error of a logit", low=0.0, high=1.0)
    record: str = flag("", "JSON file of PyTorch's tensors and outputs to write; empty: none")


def run(config: Config) -> dict[str, Any]:
    """Compares the models one by one; returns the greatest error of each.

    Raises:
      UserError: there is no model of a name.
      TrainingError: an error is above --tolerance.
    """
    table = cases()
    names = config.only.split(",") if config.only else list(table)
    if unknown := set(names) - set(table):
        raise UserError(f"--only={unknown.pop()}: choose from {', '.join(table)}")
    results = {}
    print(f"{'model':<14} {'theirs here':>12} {'ours there':>12}")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            result = compare(name, table[name], config.torch_python, Path(folder))
        print(f"{name:<14} {result.theirs:>12.2e} {result.ours:>12.2e}", flush=True)
        results[name] = result
    if config.record:
        record(Path(config.record), results)
    worst = {name: max(result.theirs, result.ours) for name, result in results.items()}
    if wrong := [name for name, value in worst.items() if not value <= config.tolerance]:
        raise TrainingError(f"{', '.join(wrong)}: above --tolerance={config.tolerance}")
    return worst


if __name__ == "__main__":
    cli.main(run, Config)
