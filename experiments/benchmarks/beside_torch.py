"""Training time compared with PyTorch and plain Flax on the same machine.

    python -m experiments.benchmarks.beside_torch --torch_python=PYTHON
    python -m experiments.benchmarks.beside_torch --only=lenet5,vgg16-64 --turns=5

PyTorch (`pip install -e '.[benchmark]'`) may be installed in a separate environment, whose
interpreter is PYTHON. The two sides of a case are processes that run at the same time, may use all
cores and work in turns (see `pair`). `jaxdl_side`, `torch_side` and `flax_side` define the step of
each side. Figures are medians and quartiles over the turns; a ratio below 1 means that jaxdl is
faster. They are saved in one file per kind of hardware, from which `performance` makes the tables.

The machine should be idle otherwise: threads that wait for each other lose far more to another
process than that process's share of the cores.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import cases, pair, performance
from experiments.benchmarks.cases import Case
from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Cases to measure, their sizes and the number of turns."""

    torch_python: str = flag("", "interpreter that has PyTorch; empty: this one", runtime=True)
    only: str = flag("", "comma-separated prefixes of case names; empty: all cases")
    batch_size: int = flag(0, "number of examples in an update; 0: each case's own", low=0)
    num_steps: int = flag(
        0, "number of updates in a turn, except for whole epochs; 0: each case's own", low=0
    )
    turns: int = flag(15, "number of times that each side is timed", low=2)
    results: str = flag(performance.KEPT, "folder of the files of figures", runtime=True)


def command(side: str, spec: str, python: str, module: str = "side") -> list[str]:
    """Returns the command that starts a side.

    PyTorch's side may run in an interpreter that does not have jaxdl's dependencies.

    Args:
      side: "jaxdl", "torch" or "flax".
      spec: the argument of the side, as JSON.
      python: the interpreter that runs PyTorch; empty: this one.
      module: the suffix of PyTorch's module, "side" or "speedrun".

    Raises:
      UserError: `python` does not have PyTorch.
    """
    if side != "torch":
        return [sys.executable, "-m", f"experiments.benchmarks.{side}_side", spec]
    python = python or sys.executable
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"
    try:
        missing = (
            not shutil.which(python) or subprocess.run([python, "-c", probe], timeout=60).returncode
        )
    except (OSError, subprocess.TimeoutExpired):
        missing = True
    if missing:
        raise UserError(
            f"{python} has no PyTorch, or did not find it within 60 s: pip install -e "
            "'.[benchmark]', or name an interpreter that has it, --torch_python=PYTHON"
        )
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return [
        "env",
        f"PYTHONPATH={path}",
        python,
        "-m",
        f"experiments.benchmarks.torch_{module}",
        spec,
    ]


@contextlib.contextmanager
def sides(
    case: Case, names: Sequence[str], python: str, variables: dict[str, str] | None = None
) -> Iterator[list[pair.Side]]:
    """Starts the sides of a case at the same time.

    Args:
      case: the model, batch size, dtype and number of steps to time.
      names: the names of the sides, such as "jaxdl" and "torch".
      python: the interpreter that runs PyTorch; empty: this one.
      variables: environment variables to add.

    Yields:
      The sides, in the order of `names`; they may still be compiling.

    Raises:
      UserError: a side cannot be started.
    """
    with contextlib.ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "examples.npz"
        cases.write(case, path)
        spec = json.dumps(case._asdict() | {"data": str(path)})
        extra = ["env", *(f"{name}={value}" for name, value in (variables or {}).items())]
        yield [
            stack.enter_context(pair.started(name, [*extra, *command(name, spec, python)]))
            for name in names
        ]


def compare(
    case: Case, both: Sequence[pair.Side], turns: int, pause: float = pair.PAUSE
) -> dict[str, Any]:
    """Times both sides of a case in turns; returns the record to publish.

    Args:
      case: the case that both sides run.
      both: the sides, jaxdl's first.
      turns: the number of times that each side is timed.
      pause: the pause before each turn, in seconds.

    Raises:
      UserError: a side fails, or the sides differ in their number of parameters, kind of device or
        float32 precision.
    """
    ours, theirs = (side.report for side in both)
    for fact in ("parameters", "backend", "tf32"):
        if fact in theirs and ours[fact] != theirs[fact]:
            raise UserError(
                f"{case.name}: {fact} {ours[fact]} of jaxdl, {theirs[fact]} of {case.beside}: "
                "give an interpreter whose side has the same"
            )
    seconds = pair.take_turns(both, turns, pause)
    return {
        "case": case.name,
        **case._asdict(),
        "turns": turns,
        "seconds": {name: pair.spread(values) for name, values in seconds.items()},
        "ratio": pair.spread(pair.ratios(seconds["jaxdl"], seconds[case.beside])),
        "parameters": ours["parameters"],
        "hardware": ours["hardware"],
        "cores": ours["cores"],
        "versions": {"jaxdl": ours["versions"], case.beside: theirs["versions"]},
        **{name: ours[name] for name in ("flops", "tf32", "native") if name in ours},
        "memory_bytes": {
            side.name: side.report["memory_bytes"] for side in both if "memory_bytes" in side.report
        },
    }


def run(config: Config) -> dict[str, Any]:
    """Measures the cases one by one and saves each; returns the medians of their ratios."""
    origin = performance.origin(Path(config.results))  # before files are written
    medians = {}
    for case in cases.select(config.only, config.batch_size, config.num_steps):
        with sides(case, ("jaxdl", case.beside), config.torch_python) as both:
            entry = compare(case, both, config.turns)
        values = {"only": case.name, "batch_size": config.batch_size, "num_steps": config.num_steps}
        flags = [f"--{name}={value}" for name, value in values.items() if value]
        words = ["python -m experiments.benchmarks.beside_torch", *flags, f"--turns={config.turns}"]
        entry |= {"command": " ".join(words), **origin}
        performance.save(Path(config.results), entry)
        print(performance.line(entry), flush=True)
        medians[case.name] = entry["ratio"]["median"]
    return medians


if __name__ == "__main__":
    # The sides share the GPU's memory with this process, where JAX would reserve most of it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    cli.main(run, Config)
