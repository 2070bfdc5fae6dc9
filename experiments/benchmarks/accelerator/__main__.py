"""Measures an accelerator in a given number of minutes, the most important first.

    python -m experiments.benchmarks.accelerator --minutes=8 --output=FOLDER
    python -m experiments.benchmarks.accelerator --only=steps/resnet50,loop
    python -m experiments.benchmarks.accelerator --minutes=2 --rehearse    # in small, on a CPU

Parts: `runs` (every experiment, resume, verify, determinism), `steps` (beside PyTorch), `loop`
(beside a bare step), `speedrun` (CIFAR-10, beside PyTorch), `population` (64 LeNets by vmap),
`checks` (numerics against float64). Each is a process with a share of the minutes, in which it
compiles, too. Each result is written to FOLDER/results.jsonl at once; `accelerator.publish` adds
them to the published figures.

PyTorch is in this interpreter, or in --torch_python's; without it jaxdl is measured alone.
CIFAR-10 is read from .accelerator/tfds, where that is; else there are scikit-learn's digits.
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

DEVICES = ("/dev/nvidia[0-9]*", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*", "/dev/kfd")  # as files
# On an H100 with 16 cores `runs` took two minutes, and a quarter of `steps` half a minute; the
# program that trains CIFAR-10 compiles for one.
SHARES = {"runs": 26, "steps": 38, "loop": 8, "speedrun": 18, "population": 5, "checks": 5}
IN_SMALL = {"runs": 66, "steps": 10, "loop": 18, "speedrun": 15, "population": 10, "checks": 12}
# Without optimisation programs compile in half the time.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Time, place and choice."""

    minutes: float = flag(8.0, "minutes until the end, compiling included", low=0.01, high=1e4)
    output: str = flag(
        "", "new folder of the results and logs; default: runs/accelerator/<time>", runtime=True
    )
    only: str = flag(
        "", "starts of names of parts or results, between commas: steps/vgg16,loop; empty: all"
    )
    rehearse: bool = flag(False, "measure in small on a CPU, to see that all of it works")
    torch_python: str = flag("", "interpreter that has PyTorch; empty: this one", runtime=True)


def parts(only: str, shares: dict[str, int]) -> list[driver.Part]:
    """The parts that `only` chooses, in their order, with their shares of the time.

    Raises:
      UserError: a start is of no part.
    """
    for start in report.starts(only) or ([only] if only else []):
        part, slash, _ = start.partition("/")
        if part not in shares if slash else not any(name.startswith(start) for name in shares):
            raise UserError(f"--only={start}: no part begins so; there are {', '.join(shares)}")
    return [
        driver.Part(
            name, share, [sys.executable, "-m", f"experiments.benchmarks.accelerator.{name}"]
        )
        for name, share in shares.items()
        if report.chosen(name, only)
    ]


def folder(config: Config) -> Path:
    """A new folder of results.

    Raises:
      UserError: it has results, or cannot be made.
    """
    path = Path(config.output or time.strftime("runs/accelerator/%Y-%m-%d-%H%M%S"))
    if (path / "results.jsonl").exists():
        raise UserError(f"--output={path} has results: name a new folder")
    for needed in (path, path / "logs"):
        performance.make_folder(needed, "output")
    try:
        report.append(path / "results.jsonl", {"name": "origin", **performance.measured_from()})
    except OSError as error:
        text = f"--output={path} cannot be written ({error.strerror}): name a folder that can"
        raise UserError(text) from error
    return path


def run(config: Config, spent: float = 0.0) -> None:
    """Measures, and prints a table.

    Args:
      config: the flags.
      spent: seconds of the minutes that are over.

    Raises:
      UserError: a flag chooses no part or no new folder.
      TrainingError: something failed.
    """
    todo = parts(config.only, IN_SMALL if config.rehearse else SHARES)
    if config.torch_python:  # else it would be found to lack PyTorch when minutes are gone
        beside_torch.command("torch", "", config.torch_python)
    if not config.rehearse and not any(map(glob.glob, DEVICES)):
        say(f"no accelerator ({', '.join(DEVICES)}): this measures the CPU, as --rehearse in small")
    path = folder(config)
    say(f"results, each as soon as it is there: {path / 'results.jsonl'}")
    # What runs at once shares a GPU's memory, of which JAX would take most at its start.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if config.rehearse:
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()
    spec = {
        "only": config.only,
        "rehearse": config.rehearse,
        "torch_python": config.torch_python,
    }
    results = report.read(driver.drive(todo, 60 * config.minutes - spent, path, spec))
    print(table.render(results))
    failed = [line["name"] for line in results if line.get("state") == report.FAILED]
    if failed:
        raise TrainingError(f"{len(failed)} failed ({', '.join(failed)}): see {path}/logs")
    if not any(line.get("state") == report.DONE and "/" in line["name"] for line in results):
        raise TrainingError(f"nothing was measured: give more --minutes, or see {path}/logs")


def command() -> None:
    """Reads the flags. It asks for no device: the parts do, one after the other."""
    config = parse_flags(Config, sys.argv[1:])
    if config is None:
        print(f"{__doc__}\n{flags_help(Config)}")
        return
    run(config, age())


def age() -> float:
    """Seconds since this process was started, imports and all."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # after the machine's own start
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


if __name__ == "__main__":
    sys.exit(cli.guard(command))
