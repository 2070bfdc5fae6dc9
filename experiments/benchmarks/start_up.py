"""Time to the first step of a run, and to the end of `--help`.

    python -m experiments.benchmarks.start_up

Times whole processes from their start: `--help`; one step of VGG-16 on digits with an empty cache
of compiled programs; and the same step with the cache that this run filled.
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
EXPERIMENT = [sys.executable, "-m", "experiments.cifar_vgg"]
STEP = [*EXPERIMENT, "--dataset=embedded", "--num_steps=1"]


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Number of turns and the folder of the figures."""

    turns: int = flag(5, "number of times that each command is timed", low=2)
    results: str = flag(performance.KEPT, "folder of the files of figures", runtime=True)


def first_step(cache: Path, run: Path) -> float:
    """Returns the seconds from the start of a process until it reports its first step.

    Args:
      cache: the folder of the cache of compiled programs.
      run: the run folder.

    Raises:
      UserError: the process failed, or did not report a first step.
    """
    began = time.monotonic()
    environ = os.environ | {"XDG_CACHE_HOME": str(cache)}
    command = [*STEP, f"--workdir={run}"]
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


def help_page() -> float:
    """Returns the seconds that `--help` takes."""
    began = time.monotonic()
    subprocess.run([*EXPERIMENT, "--help"], capture_output=True, check=False)
    return time.monotonic() - began


def run(config: Config) -> dict[str, Any]:
    """Times each command; returns the medians."""
    origin = performance.origin(Path(config.results))
    seconds: dict[str, list[float]] = {}
    for _ in range(config.turns):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            turn = {
                "`--help`": help_page(),
                "first step of VGG-16, never compiled": first_step(folder, folder / "cold"),
                "first step of VGG-16, compiled before": first_step(folder, folder / "warm"),
            }
        for case, value in turn.items():
            seconds.setdefault(case, []).append(value)
    return {
        case: performance.save_cost(Path(config.results), case, values, "s", COMMAND, origin)
        for case, values in seconds.items()
    }


if __name__ == "__main__":
    cli.main(run, Config)
