"""CIFAR-10 speedrun compared with PyTorch: a part of `accelerator`.

Both sides train in turns by the recipe of `experiments.cifar_speedrun`, each in its own process,
with new seeds until the time is over. The time of a training does not include compiling.
"""

import contextlib
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments import cifar_speedrun
from experiments.benchmarks import beside_torch, pair, performance
from experiments.benchmarks.accelerator.report import SKIPPED, Report
from experiments.benchmarks.time_to_accuracy import Config
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags

DATA = Path(".accelerator/tfds")
COMMAND = "python -m experiments.benchmarks.accelerator --only=speedrun"
# Every data set must have a validation split: here 1,000 of the 50,000 images.
CIFAR = ("--dataset=cifar10", f"--data_dir={DATA}", "--validation_fraction=0.02")
DIGITS = ("--dataset=embedded", "--image_size=16", "--batch_size=100", "--width_multiplier=0.25")
IN_SMALL = (*DIGITS[:3], "--width_multiplier=0.04", "--num_epochs=1")
LEARNED = 0.2  # accuracy on ten classes that a side must exceed
DOUBLE = 2  # results are written whenever the number of trainings has grown by this factor


def flags(rehearse: bool) -> list[str]:
    """Returns the flags of the recipe for the data set that is available."""
    if rehearse:
        return [*IN_SMALL, "--dtype=bfloat16"]
    if (DATA / "cifar10").is_dir():
        return [*CIFAR, "--dtype=bfloat16"]
    return [*DIGITS, "--num_epochs=15", "--learning_rate=0.12", "--dtype=bfloat16"]


def write(config: Config, folder: Path) -> dict[str, Any]:
    """Writes the images into a folder; returns the spec of `torch_speedrun`."""
    data = cifar_speedrun.load(config)
    mean, std = data.spec.statistics()
    arrays = {
        f"{name}_{entry}": split[entry].astype(np.int64 if entry == "label" else np.uint8)
        for name, split in (("train", data.train), ("test", data.test))
        for entry in ("image", "label")
    }
    np.savez(folder / "images.npz", allow_pickle=False, **arrays)
    shared = """batch_size learning_rate bias_rate head_rate momentum rest_momentum weight_decay
    label_smoothing translate whitening_epochs dtype"""
    return {
        "data": str(folder / "images.npz"),
        "mean": mean.tolist(),
        "std": std.tolist(),
        "classes": data.spec.num_classes,
        "mirrored": config.flip and data.spec.mirrored,
        "epochs": config.num_epochs,
        "width": config.width_multiplier,
        **{name: getattr(config, name) for name in shared.split()},
    }


def race(report: Report) -> tuple[str, dict[str, Any]]:
    """Trains both sides in turns until the time is over; see `trainings`.

    Raises:
      UserError: a side fails, or the sides differ in their number of parameters.
    """
    recipe = flags(report.rehearse)
    config = parse_flags(Config, recipe)
    assert config is not None
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        side = [sys.executable, "-m", "experiments.benchmarks.speedrun_side", *recipe]
        sides = [stack.enter_context(pair.started("jaxdl", side))]
        spec = json.dumps(write(config, folder))
        try:
            command = beside_torch.command("torch", spec, report.spec["torch_python"], "speedrun")
        except UserError as error:
            report.add("speedrun/torch", f"jaxdl trains alone: {error}", SKIPPED)
        else:
            sides.append(stack.enter_context(pair.started("torch", command)))
        if len({side.report["parameters"] for side in sides}) > 1:
            counts = [side.report["parameters"] for side in sides]
            raise UserError(f"the sides have different numbers of parameters: {counts}")
        return trainings(report, sides, config)


def trainings(report: Report, sides: list[pair.Side], config: Config) -> tuple[str, dict[str, Any]]:
    """Trains in turns while there is time, at least twice; returns a line of text and figures.

    Raises:
      UserError: a side fails, or its accuracy is not above chance.
    """
    results: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    next_report, longest = 2, 0.0
    while len(results["jaxdl"]) < 2 or report.left() > 1.5 * longest:
        before = report.left()
        for side in sides if len(results["jaxdl"]) % 2 else reversed(sides):
            answer = side.ask(dict)
            if not (report.rehearse or answer["accuracy"] > LEARNED):
                raise UserError(f"{side.name} has learned nothing: accuracy {answer['accuracy']}")
            results[side.name].append(answer)
        longest = max(longest, before - report.left())
        if len(results["jaxdl"]) == next_report:
            text, fields = summary(results, sides, config)
            report.add("speedrun/training", text, **fields)
            next_report *= DOUBLE
            if report.rehearse:
                break
    return summary(results, sides, config)


def summary(
    results: dict[str, list[dict[str, float]]], sides: list[pair.Side], config: Config
) -> tuple[str, dict[str, Any]]:
    """Returns a line of text, and the figures of all trainings so far."""
    recipe = f"{config.dataset}, {config.num_epochs} epochs, {config.dtype}"
    machine, texts, entries = sides[0].report, [], []
    for side in sides:
        versions = machine["versions"] | side.report["versions"]
        runs = results[side.name]
        name = performance.NAMES.get(side.name, side.name)
        for entry, unit, label in (
            ("seconds", "s", "training"),
            ("accuracy", "of the test split", "accuracy"),
        ):
            values = [run[entry] for run in runs]
            case = f"{name}, {label}: {recipe}"
            cost = performance.cost(case, values, unit, COMMAND, machine | {"versions": versions})
            entries.append(["costs", cost])
        seconds = statistics.median(run["seconds"] for run in runs)
        accuracy = statistics.mean(run["accuracy"] for run in runs)
        texts.append(f"{name} {seconds:.3g} s to {accuracy:.4f} over {len(runs)} seeds")
    return f"{recipe}: {'; '.join(texts)}", {"entries": entries}


def main(report: Report) -> None:
    """Runs the speedrun."""
    report.attempt("speedrun/training", lambda: race(report))


if __name__ == "__main__":
    main(Report(json.loads(sys.argv[1])))
