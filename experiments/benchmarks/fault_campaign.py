"""A hundred planted faults, and what `jaxdl diff` finds of them.

    python -m experiments.benchmarks.fault_campaign --workdir=runs/faults
    python -m experiments.benchmarks.fault_campaign --workdir=runs/faults --faults=8

Runs of eight experiments are repeated with one fault at a time (`planted_faults`). A fault is found
if the very step and the layer or array are named, with at most log2(N) + 2 replays of N steps. XLA
may round a changed program otherwise at an earlier step: then this step has to be named, which is
compared with a replay in one piece.
Prints a line for each fault and a table of the kinds. Seconds are of CPU, without the training. The
outcomes are kept in `faults.jsonl` of the workdir, and the same command goes on from them.
"""

import dataclasses
import json
import math
import random
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from experiments import (
    cartpole_ppo,
    forecast_rnn,
    iris_mlp,
    mnist_gan,
    mnist_lenet,
    mnist_vae,
    shakespeare_lm,
    tabular_mlp,
)
from experiments.benchmarks.planted_faults import Here, changed, compared, flip, weights
from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.console import say
from jaxdl.errors import UserError
from jaxdl.run.checkpoint import Checkpoints

EXPERIMENTS: tuple[Any, ...] = (
    iris_mlp,
    tabular_mlp,
    mnist_lenet,
    mnist_vae,
    mnist_gan,
    shakespeare_lm,
    forecast_rnn,
    cartpole_ppo,
)
MODULES = {module.__name__.removeprefix("experiments."): module for module in EXPERIMENTS}
# Faults in each experiment, of a hundred.
SHARES = {
    "iris_mlp": 26,
    "tabular_mlp": 20,
    "mnist_lenet": 14,
    "mnist_vae": 8,
    "mnist_gan": 6,
    "shakespeare_lm": 10,
    "forecast_rnn": 10,
    "cartpole_ppo": 6,
}
# Flags of the experiments; the lengths of the runs differ.
SUBJECTS: dict[str, dict[str, Any]] = {
    "iris_mlp": {"num_steps": 300},
    "tabular_mlp": {"num_steps": 200, "members": 2, "hidden": 16, "periodic": 0},
    "mnist_lenet": {"num_steps": 60, "dataset": "embedded", "batch_size": 32},
    "mnist_vae": {"num_steps": 100, "dataset": "embedded", "batch_size": 32, "draws": 1},
    "mnist_gan": {
        "num_steps": 30,
        "dataset": "embedded",
        "batch_size": 16,
        "image_size": 8,
        "width": 4,
        "hidden": 16,
    },
    "forecast_rnn": {"num_steps": 48, "features": 8, "length": 12, "batch_size": 8},
    "shakespeare_lm": {
        "num_steps": 40,
        "dataset": "embedded",
        "length": 16,
        "layers": 1,
        "features": 16,
        "heads": 2,
    },
    "cartpole_ppo": {
        "num_steps": 12,
        "rollout": 4,
        "passes": 2,
        "minibatches": 2,
        "hidden": 8,
        "batch_size": 4,
    },
}
KINDS = ("checkpoint", "bit", "forward", "backward", "update", "augmentation")
LABELS = {
    "checkpoint": "bit of a weight in a checkpoint",
    "bit": "bit of a weight in a step",
    "forward": "operation of a forward pass",
    "backward": "operation of a backward pass",
    "update": "operation of an update",
    "augmentation": "line of an augmentation",
}


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Number of faults."""

    faults: int = flag(100, "number of faults", low=1, high=100)
    only: str = flag("", "experiments to plant faults in, separated by commas (default: all)")


class Subject(NamedTuple):
    """A trained run, and where faults can be planted in it.

    Attributes:
      module: the experiment.
      folder: the run folder.
      side: the run, opened once for all faults.
      layers: paths of its layers.
      arrays: paths of its arrays of weights.
      inputs: names of the data in a batch.
      steps: number of steps.
    """

    module: Any
    folder: Path
    side: Here
    layers: list[str]
    arrays: list[str]
    inputs: list[str]
    steps: int


class Outcome(NamedTuple):
    """Outcome of one fault.

    Attributes:
      number: number of the fault.
      subject: the experiment.
      kind: kind of the fault.
      is_found: whether step and place are named.
      replays: number of replays.
      seconds: CPU time of the comparison.
    """

    number: int
    subject: str
    kind: str
    is_found: bool
    replays: int
    seconds: float


def train(name: str, folder: Path) -> Subject:
    """Trains a run, and collects the places where faults can be planted."""
    module = MODULES[name]
    values = SUBJECTS[name]
    every = values["num_steps"] // 3
    often = {"log_every": every, "eval_every": every, "checkpoint_every": every}
    if not folder.exists():
        config = module.Config(workdir=str(folder), **values, **often)
        module.run(config)
    side = Here("A", folder, module)
    side.ask("begin", step=0)
    function, numbers, state, batch = side._side._call(initial=False)
    layers: dict[str, None] = {}

    def record(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        result = call(*arguments, **keywords)
        is_plain = all(_is_floating(x) for x in (*arguments[:1], result))
        if context.module.path and context.method_name == "__call__" and arguments and is_plain:
            layers["/".join(context.module.path)] = None
        return result

    with nn.intercept_methods(record):
        jax.eval_shape(lambda *a: function.__wrapped__(*a), numbers, state, batch)
    inputs = [n for n in batch if n not in ("index", "mask", "label", "target", "length")]
    nonzero = [n for n in weights(state) if not n.endswith("bias")]
    return Subject(module, folder, side, list(layers), nonzero, inputs, values["num_steps"])


def plant(subject: Subject, kind: str, generator: random.Random) -> tuple[str, list[str]]:
    """Plants one fault; returns what `jaxdl diff` prints, and patterns that it should match."""
    if kind == "checkpoint":
        with tempfile.TemporaryDirectory() as copy:
            other = Path(copy) / "run"
            shutil.copytree(subject.folder, other)
            step = generator.choice(Checkpoints(subject.folder / "checkpoints").steps())
            name = re.escape(flip(other, step, generator))
            b = Here("B", other, subject.module)
            text = compared(subject.side, b, is_same=False)
        return text, [rf"B: its checkpoint of step {step} is not .*:\n  {name}: 1 of "]
    first = generator.randrange(subject.steps)
    is_layer = kind in ("forward", "backward")
    places = subject.arrays if kind in ("bit", "update") else subject.inputs
    place = generator.choice(subject.layers if is_layer else places)
    build = changed(subject.module.build, kind, place, first)
    b = Here("B", subject.folder, subject.module, build)
    text = compared(subject.side, b, is_same=True)
    named = re.escape(place)
    forward = "(forward|before the gradient)"  # an agent calls its layers outside of it, too
    pattern = {
        "augmentation": r"first operation.*: outside every layer \(.*before the gradient",
        "forward": rf"first operation.*: (\S* )*(\S*/)?{named}(/\S+)? \(.*, {forward}\)",
        "backward": rf"first operation.*: (\S* )*(\S*/)?{named}(/\S+)? \(.*, backward\)",
    }.get(kind, rf"state after the step: 1 of \d+ .*\n  {named}: ")
    parted = re.search(r"equal up to step (\d+), different after", text)
    if parted and int(parted[1]) < first and parts_after(subject.side, b, int(parted[1])):
        first = int(parted[1])
    return text, [rf"equal up to step {first}, different after", pattern]


def parts_after(a: Here, b: Here, step: int) -> bool:
    """Returns whether two sides have equal states at a step, and different ones at the next."""
    states = []
    for side in (a, b):
        side.ask("begin", step=0)
        states.append([side.ask("go", step=n) for n in (step, step + 1)])
    return states[0][0] == states[1][0] and states[0][1] != states[1][1]


def run(config: Config) -> dict[str, Any]:
    """Plants the faults one by one; returns how many were found, and the most replays.

    Raises:
      UserError: an experiment of --only is unknown.
    """
    chosen = (config.only or ",".join(SHARES)).split(",")
    if unknown := [name for name in chosen if name not in SHARES]:
        raise UserError(f"--only={config.only}: no {unknown[0]!r}: choose from {','.join(SHARES)}")
    folder = Path(config.workdir or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "faults.jsonl"
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    outcomes = [Outcome(**json.loads(line)) for line in lines]
    every = [name for name, share in SHARES.items() for _ in range(share)]
    names = [every[n * len(every) // config.faults] for n in range(config.faults)]
    subjects: dict[str, Subject] = {}
    for number, name in enumerate(names):
        is_done = number in (one.number for one in outcomes)
        if is_done or name not in chosen:
            continue
        if name not in subjects:
            jax.clear_caches()  # of the subject before
            subjects = {name: train(name, folder / name)}
        outcome, text = attempt(subjects[name], number, config.seed)
        outcomes.append(outcome)
        with record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(outcome._asdict()) + "\n")
        say(f"fault {number}: {outcome}" + ("" if outcome.is_found else f" NOT FOUND: {text}"))
    print(table(outcomes))
    found = sum(one.is_found for one in outcomes)
    replays = max(one.replays for one in outcomes)
    return {"faults": len(outcomes), "found": found, "replays": replays}


def attempt(subject: Subject, number: int, seed: int) -> tuple[Outcome, str]:
    """Plants the fault of a number; returns its outcome, and what is wrong with it."""
    name = subject.module.__name__.removeprefix("experiments.")
    kinds = KINDS if subject.inputs else KINDS[:-1]
    kind = kinds[number % len(kinds)]
    began = time.process_time()
    text, patterns = plant(subject, kind, random.Random(f"{seed} {number}"))
    seconds = round(time.process_time() - began, 2)
    replays = max(map(int, re.findall(r"\(replays: (\d+)\)", text)), default=1)
    limit = math.log2(subject.steps) + 2
    is_found = all(re.search(p, text) for p in patterns) and replays <= limit
    return Outcome(number, name, kind, is_found, replays, seconds), f"{patterns} in\n{text}"


def table(outcomes: list[Outcome]) -> str:
    """Returns a Markdown table with a line for each kind of fault."""
    lines = ["| fault | planted | found | most replays | CPU seconds, mean and most |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for kind, label in LABELS.items():
        some = [one for one in outcomes if one.kind == kind]
        if some:
            seconds = [one.seconds for one in some]
            lines.append(
                f"| {label} | {len(some)} | {sum(one.is_found for one in some)} | "
                f"{max(one.replays for one in some)} | "
                f"{sum(seconds) / len(some):.1f}, {max(seconds):.1f} |"
            )
    return "\n".join(lines)


def _is_floating(x: Any) -> bool:
    return hasattr(x, "dtype") and jax.numpy.issubdtype(x.dtype, jax.numpy.floating)


if __name__ == "__main__":
    cli.main(run, Config)
