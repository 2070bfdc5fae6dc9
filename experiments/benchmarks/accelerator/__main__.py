"""Measures an accelerator in a given number of minutes, the most important parts first.

    python -m experiments.benchmarks.accelerator --minutes=8 --output=FOLDER
    python -m experiments.benchmarks.accelerator --only=steps/resnet50,loop
    python -m experiments.benchmarks.accelerator --minutes=2 --rehearse    # small, on a CPU

The parts are:

    runs        every experiment, resume, verify, determinism
    steps       step times compared with PyTorch
    loop        the training loop compared with a bare step
    speedrun    CIFAR-10 in the least time, compared with PyTorch
    population  64 LeNets by vmap
    checks      numerics compared with float64

Each part is a process with a share of the minutes, compiling included. Each result is written to
FOLDER/results.jsonl at once; `accelerator.publish` adds the results to the published figures.

PyTorch is imported in this interpreter or in that of --torch_python; without PyTorch only jaxdl is
measured. CIFAR-10 is read from .accelerator/tfds if it exists; otherwise scikit-learn's digits are
used.
"""

import dataclasses
import glob
import os
import sys
import time
from pathlib import Path

from experiments.benchmarks import beside_torch, performance
from experiments.benchmarks.accelerator import driver, report, table
from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.console import say
from jaxdl.errors import TrainingError, UserError
from jaxdl.flags import flags_help, parse_flags

DEVICES = ("/dev/nvidia[0-9]*", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*", "/dev/kfd")  # device files
# Measured on an H100 with 16 cores: `runs` took two minutes, a quarter of `steps` half a minute,
# and compiling the program that trains CIFAR-10 one minute.
SHARES = {"runs": 26, "steps": 38, "loop": 8, "speedrun": 18, "population": 5, "checks": 5}
IN_SMALL = {"runs": 66, "steps": 10, "loop": 18, "speedrun": 15, "population": 10, "checks": 12}
# Programs compile in half the time without optimisation.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Time limit, output folder and selection of parts."""

    minutes: float = flag(8.0, "time limit in minutes, compiling included", low=0.01, high=1e4)
    output: str = flag(
        "", "new folder for results and logs; default: runs/accelerator/<time>", runtime=True
    )
    only: str = flag(
        "", "comma-separated prefixes of parts or results, such as steps/vgg16,loop; empty: all"
    )
    rehearse: bool = flag(False, "measure small sizes on a CPU, to test the measurement itself")
    torch_python: str = flag("", "interpreter that has PyTorch; empty: this one", runtime=True)


def parts(only: str, shares: dict[str, int]) -> list[driver.Part]:
    """Returns the parts that `only` selects, in their order.

    Args:
      only: comma-separated prefixes of parts or results; empty: all parts.
      shares: the share of the time of each part.

    Raises:
      UserError: no part begins with one of the prefixes.
    """
    for prefix in report.starts(only) or ([only] if only else []):
        part, slash, _ = prefix.partition("/")
        if part not in shares if slash else not any(name.startswith(prefix) for name in shares):
            raise UserError(
                f"--only={prefix}: no part begins with that; the parts are {', '.join(shares)}"
            )
    return [
        driver.Part(
            name, share, [sys.executable, "-m", f"experiments.benchmarks.accelerator.{name}"]
        )
        for name, share in shares.items()
        if report.chosen(name, only)
    ]


def folder(config: Config) -> Path:
    """Creates the folder of the results, with the origin as the first line of results.jsonl.

    Raises:
      UserError: the folder has results already, or cannot be created.
    """
    path = Path(config.output or time.strftime("runs/accelerator/%Y-%m-%d-%H%M%S"))
    if (path / "results.jsonl").exists():
        raise UserError(f"--output={path} has results: name a new folder")
    for subfolder in (path, path / "logs"):
        performance.make_folder(subfolder, "output")
    try:
        report.append(path / "results.jsonl", {"name": "origin", **performance.measured_from()})
    except OSError as error:
        text = f"--output={path} cannot be written ({error.strerror}): name another folder"
        raise UserError(text) from error
    return path


def run(config: Config, spent: float = 0.0) -> None:
    """Runs the parts and prints a table of the results.

    Args:
      config: the flags.
      spent: the seconds of the time limit that have passed already.

    Raises:
      UserError: a flag selects no part, or names a folder that is not new.
      TrainingError: a measurement failed, or there was no time for any.
    """
    selected = parts(config.only, IN_SMALL if config.rehearse else SHARES)
    if config.torch_python:  # checked now, before any time is spent
        beside_torch.command("torch", "", config.torch_python)
    if not config.rehearse and not any(map(glob.glob, DEVICES)):
        say(
            f"no accelerator ({', '.join(DEVICES)}): this measures the CPU at full size; "
            "--rehearse measures small sizes"
        )
    path = folder(config)
    say(f"results are written one by one to {path / 'results.jsonl'}")
    # Processes that run at the same time share the GPU's memory; JAX would reserve most of it.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if config.rehearse:
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()
    spec = {
        "only": config.only,
        "rehearse": config.rehearse,
        "torch_python": config.torch_python,
    }
    results = report.read(driver.drive(selected, 60 * config.minutes - spent, path, spec))
    print(table.render(results))
    failed = [line["name"] for line in results if line.get("state") == report.FAILED]
    if failed:
        raise TrainingError(f"{len(failed)} failed ({', '.join(failed)}): see {path}/logs")
    if not any(line.get("state") == report.DONE and "/" in line["name"] for line in results):
        raise TrainingError(f"nothing was measured: give more --minutes, or see {path}/logs")


def command() -> None:
    """Reads the flags and runs; uses no device itself, because the parts do, one by one."""
    config = parse_flags(Config, sys.argv[1:])
    if config is None:
        print(f"{__doc__}\n{flags_help(Config)}")
        return
    run(config, age())


def age() -> float:
    """Returns the seconds since the start of this process, which include its imports."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # in seconds since boot
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


if __name__ == "__main__":
    sys.exit(cli.guard(command))
