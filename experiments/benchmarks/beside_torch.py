"""Training time beside PyTorch and plain Flax, on the same machine.

    python -m experiments.benchmarks.beside_torch --torch_python=PYTHON
    python -m experiments.benchmarks.beside_torch --only=lenet5,vgg16-64 --turns=5

PyTorch (`pip install -e '.[benchmark]'`) may live in an environment of its own, whose interpreter
is PYTHON. Both sides of a case are alive together, may use all cores, and work in turns (`pair`).
What a side's step is stands in `jaxdl_side`, `torch_side` and `flax_side`. Figures are medians and
quartiles over the turns; a ratio below 1 says that jaxdl is faster. They are kept in a file for
each kind of hardware, of which `performance` makes the README's table.

The machine should have nothing else to do: threads that wait for each other lose far more to a
neighbour than its share.
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
    """Which cases, and how often."""

    torch_python: str = flag("", "interpreter that has PyTorch; empty: this one", runtime=True)
    only: str = flag("", "starts of the names of cases, between commas; empty: all cases")
    batch_size: int = flag(0, "examples an update; 0: each case's own", low=0)
    num_steps: int = flag(0, "updates of a turn, but for epochs; 0: each case's own", low=0)
    turns: int = flag(15, "times that each side is timed", low=2)
    results: str = flag(performance.KEPT, "folder of the files of figures", runtime=True)


def command(side: str, spec: str, python: str, module: str = "side") -> list[str]:
    """Command that starts a side; PyTorch's may run in an interpreter that lacks jaxdl.

    `module` is `side`, or PyTorch's other one, `speedrun`.

    Raises:
      UserError: `python`, which is to run PyTorch, has none.
    """
    if side != "torch":
        return [sys.executable, "-m", f"experiments.benchmarks.{side}_side", spec]
    python = python or sys.executable
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"
    try:
        lacks = (
            not shutil.which(python) or subprocess.run([python, "-c", look], timeout=60).returncode
        )
    except (OSError, subprocess.TimeoutExpired):
        lacks = True
    if lacks:
        raise UserError(
            f"{python} has no PyTorch that is found within a minute: pip install -e "
            "'.[benchmark]', or name an interpreter that has, --torch_python=PYTHON"
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
    """The sides of a case, started all at once; `python` runs PyTorch.

    `variables` are added to their environment.

    Raises:
      UserError: one of them cannot be started.
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
    """Times both sides of a case, jaxdl's first, with pauses of so many seconds between turns.

    Raises:
      UserError: a side fails, or the two do not train the same, on the same kind of device and as
        precisely.
    """
    ours, theirs = (side.report for side in both)
    for fact in ("parameters", "backend", "tf32"):
        if fact in theirs and ours[fact] != theirs[fact]:
            raise UserError(
                f"{case.name}: {fact} {ours[fact]} of jaxdl, {theirs[fact]} of {case.beside}: "
                "give an interpreter whose side is the same"
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
        **{name: ours[name] for name in ("flops", "tf32") if name in ours},
        "memory_bytes": {
            side.name: side.report["memory_bytes"] for side in both if "memory_bytes" in side.report
        },
    }


def run(config: Config) -> dict[str, Any]:
    """Measures one case after the other, and keeps each; returns the medians of their ratios."""
    origin = performance.origin(Path(config.results))  # before files are written
    found = {}
    for case in cases.select(config.only, config.batch_size, config.num_steps):
        with sides(case, ("jaxdl", case.beside), config.torch_python) as both:
            entry = compare(case, both, config.turns)
        given = {"only": case.name, "batch_size": config.batch_size, "num_steps": config.num_steps}
        flags = [f"--{name}={value}" for name, value in given.items() if value]
        words = ["python -m experiments.benchmarks.beside_torch", *flags, f"--turns={config.turns}"]
        entry |= {"command": " ".join(words), **origin}
        performance.keep(Path(config.results), entry)
        print(performance.line(entry), flush=True)
        found[case.name] = entry["ratio"]["median"]
    return found


if __name__ == "__main__":
    # The sides share the memory of a GPU with this process, in which JAX would take most of it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    cli.main(run, Config)
