"""Time to the first step of a run, and to the end of `--help`.

    python -m experiments.benchmarks.start_up

Times whole processes from their start: `import jaxdl`; `--help` of a command and of an experiment;
one step of LeNet-5 and of VGG-16 on digits with an empty cache of compiled programs; and the same
steps with the cache that these runs filled.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.benchmarks import performance
from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.errors import UserError

COMMAND = "python -m experiments.benchmarks.start_up"
MODELS = {"LeNet-5": "experiments.mnist_lenet", "VGG-16": "experiments.cifar_vgg"}
SHORT = {  # processes without a step
    "`import jaxdl`": ["-c", "import jaxdl"],
    "`python -m jaxdl --help`": ["-m", "jaxdl", "--help"],
    "`python -m experiments.cifar_vgg --help`": ["-m", "experiments.cifar_vgg", "--help"],
}


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Number of turns and the folder of the figures."""

    turns: int = flag(5, "number of times that each command is timed", low=2)
    results: str = flag(performance.KEPT, "folder of the files of figures", runtime=True)


def first_step(experiment: str, cache: Path, run: Path) -> float:
    """Returns the seconds from the start of a process until it reports its first step.

    Args:
      experiment: the module to run.
      cache: the folder of the cache of compiled programs.
      run: the run folder.

    Raises:
      UserError: the process failed, or did not report a first step.
    """
    began = time.monotonic()
    environ = os.environ | {"XDG_CACHE_HOME": str(cache)}
    flags = ["--dataset=embedded", "--num_steps=1", f"--workdir={run}"]
    command = [sys.executable, "-m", experiment, *flags]
    with subprocess.Popen(
        command,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stderr
        line, seconds = "", None
        for line in process.stderr:
            if "first step after" in line:
                seconds = time.monotonic() - began
    if process.returncode or seconds is None:
        raise UserError(f"{' '.join(command)} failed: {line.strip()}")
    return seconds


def process(words: list[str]) -> float:
    """Returns the seconds that a process of Python takes.

    Raises:
      UserError: the process failed.
    """
    began = time.monotonic()
    done = subprocess.run([sys.executable, *words], capture_output=True, check=False)
    if done.returncode:
        raise UserError(f"python {' '.join(words)} failed: run it, and mend what it says")
    return time.monotonic() - began


def run(config: Config) -> dict[str, Any]:
    """Times each command; returns the medians."""
    origin = performance.origin(Path(config.results))
    seconds: dict[str, list[float]] = {}
    for _ in range(config.turns):
        with tempfile.TemporaryDirectory() as name:
            turn = {case: process(words) for case, words in SHORT.items()}
            for model, experiment in MODELS.items():
                for state in ("never compiled", "compiled before"):
                    run_folder = Path(name, model, state)
                    case = f"first step of {model}, {state}"
                    turn[case] = first_step(experiment, Path(name), run_folder)
        for case, value in turn.items():
            seconds.setdefault(case, []).append(value)
    return {
        case: performance.save_cost(Path(config.results), case, values, "s", COMMAND, origin)
        for case, values in seconds.items()
    }


if __name__ == "__main__":
    cli.main(run, Config)
