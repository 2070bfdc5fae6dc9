"""Latency of predictions compared with PyTorch and ONNX Runtime on the same machine.

    python -m experiments.benchmarks.latency --torch_python=PYTHON
    python -m experiments.benchmarks.latency --only=lenet5 --batch_sizes=1,64

Each model is trained for one step on synthetic images or made-up text, and exported. The forms are
the run's own model, its exports as StableHLO and as ONNX (where jax2onnx and ONNX Runtime are
installed), and the same architecture in PyTorch, eager and compiled. Each is a process; they take
turns. Times are from NumPy to NumPy, with preprocessing. The recurrent network is a language model
and the Transformer a translator: their outputs are the logits of every position.
"""

import contextlib
import dataclasses
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks import cases, pair
from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.errors import UserError
from jaxdl.tools import latency

RECURRENT = ["--features=256", "--layers=2", f"--length={cases.WINDOW}", "--dataset=embedded"]
COLOURED = ["--dataset=synthetic"]
TRAINING = ["--num_steps=1", "--batch_size=64"]


class Model(NamedTuple):
    """A model on both sides.

    Attributes:
      experiment: name of the experiment.
      flags: its flags.
      torch: name of the model in `torch_models`.
      shapes: shapes of its inputs.
      options: arguments of PyTorch's model.
    """

    experiment: str
    flags: list[str]
    torch: str
    shapes: list[tuple[int, ...]]
    options: dict[str, int] = {}  # noqa: RUF012


def _image(experiment: str, torch: str, *flags: str, **options: int) -> Model:
    return Model(experiment, list(flags), torch, [cases.IMAGES[torch]], options)


MODELS = {
    "lenet5": _image("mnist_lenet", "lenet5", "--dataset=embedded", "--image_size=28"),
    "vgg16_quarter": _image("cifar_vgg", "vgg16", *COLOURED, "--width_multiplier=0.25", divisor=4),
    "vgg16": _image("cifar_vgg", "vgg16", *COLOURED),
    "resnet18": _image("cifar_resnet", "resnet18", *COLOURED),
    "vit": _image("cifar_vit", "vit", *COLOURED),
    "lstm": Model("shakespeare_lm", ["--model=lstm", *RECURRENT], "lstm", [(cases.WINDOW,)]),
    "transformer": Model(
        "multi30k_transformer",
        [f"--vocabulary={cases.TOKENS}", f"--length={cases.SENTENCE}", "--widths=1"],
        "transformer",
        [(cases.SENTENCE,)] * 2,
    ),
}


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Models to measure, batch sizes, turns and calls."""

    torch_python: str = flag("", "interpreter that has PyTorch; empty: this one", runtime=True)
    only: str = flag("", "comma-separated models; empty: all")
    batch_sizes: str = flag("1,8,64", "comma-separated numbers of examples of a call")
    turns: int = flag(10, "number of turns of each process", low=1)
    calls: int = flag(50, "number of calls in a turn", low=1)


def prepare(model: str, folder: Path) -> dict[str, Path]:
    """Trains a model for a step and exports it; the folder of each form.

    Args:
      model: name in MODELS.
      folder: folder to write into.
    """
    experiment, flags = MODELS[model].experiment, list(MODELS[model].flags)
    if model == "transformer":
        flags += write_sentences(folder)
    run, exported = folder / "run", folder / "exported"
    formats = "stablehlo,safetensors"
    packages = ("jax2onnx", "onnxruntime")
    has_onnx = all(importlib.util.find_spec(package) for package in packages)
    command = [sys.executable, "-m", f"experiments.{experiment}", *TRAINING, *flags]
    subprocess.run([*command, f"--workdir={run}"], check=True, stdout=subprocess.DEVNULL)
    command = [sys.executable, "-m", "jaxdl", "export", str(run), f"--output={exported}"]
    command += [f"--format={formats}{',onnx' if has_onnx else ''}", "--checkpoint=newest"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    forms = {"jaxdl": run, "stablehlo": exported}
    return forms | ({"onnx": exported} if has_onnx else {})


def write_sentences(folder: Path) -> list[str]:
    """Writes sentences of made-up words in two languages; the flags that name the files."""
    random = np.random.RandomState(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(random.choice(letters, random.randint(3, 9))) for _ in range(4000)]
    flags = ["--dataset=files"]
    for side in ("source", "target"):
        lines = (" ".join(random.choice(words, 5)) for _ in range(4000))
        path = folder / f"{side}.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        flags.append(f"--{side}_file={path}")
    return flags


def commands(model: str, forms: dict[str, Path], size: int, config: Config) -> dict[str, list[str]]:
    """Command of each process by name."""
    found = {}
    for form, folder in forms.items():
        found[form] = latency.side_command(folder, form, size, config.calls, "newest")
    python = config.torch_python or sys.executable
    if config.torch_python or importlib.util.find_spec("torch"):
        for name, is_compiled in (("torch", False), ("torch.compile", True)):
            spec: dict[str, Any] = {
                "model": MODELS[model].torch,
                "options": MODELS[model].options,
                "compile": is_compiled,
                "shapes": MODELS[model].shapes,
            }
            spec |= {"batch_size": size, "calls": config.calls}
            module = "experiments.benchmarks.torch_latency"
            found[name] = [python, "-m", module, json.dumps(spec)]
    return found


def run(config: Config) -> dict[str, Any]:
    """Prints a table for each model."""
    names = config.only.split(",") if config.only else list(MODELS)
    if unknown := [name for name in names if name not in MODELS]:
        raise UserError(f"--only={unknown[0]}: give one or more of {', '.join(MODELS)}")
    for model in names:
        with tempfile.TemporaryDirectory(prefix="jaxdl-latency-") as folder:
            forms, rows = prepare(model, Path(folder)), []
            for size in latency.parse_sizes(config.batch_sizes):
                with contextlib.ExitStack() as stack:
                    sides = [
                        stack.enter_context(pair.started(name, command))
                        for name, command in commands(model, forms, size, config).items()
                    ]
                    answers: dict[str, list[Any]] = {side.name: [] for side in sides}
                    for side in sides:
                        side.ready()
                    for turn in range(config.turns):
                        for side in reversed(sides) if turn % 2 else sides:
                            answers[side.name].append(side.ask(dict))
                    for name, turns in answers.items():
                        times = np.concatenate([answer["times"] for answer in turns])
                        peak = max(answer["peak_bytes"] for answer in turns)
                        rows.append(latency.summary(name, size, times, peak))
        print(f"{model}\n" + "\n".join(latency.table(rows)), flush=True)
    return {}


if __name__ == "__main__":
    cli.main(run, Config)
