"""Cost of trackers: the time of a log line beside that of the steps between two lines.

    python -m experiments.benchmarks.trackers --trackers=tensorboard,wandb,mlflow

The steps are those of VGG-16 at a quarter of its width. A line costs the run the time that it takes
to give it to all trackers. It also costs the CPU time of the trackers' processes, which is counted
in full, as if no core were free.
"""

import dataclasses
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from experiments import cifar_vgg
from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.data import batches
from jaxdl.run import logger
from jaxdl.trackers.process import Process

TICKS = os.sysconf("SC_CLK_TCK")  # units of CPU time per second


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Number of lines and of steps that are timed."""

    lines: int = flag(1000, "log lines that are timed", low=10)
    steps: int = flag(10, "steps of VGG-16 that are timed", low=1)


def cpu_seconds(session: int) -> float:
    """Returns the CPU time of all processes of a session so far."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == session:
            total += sum(map(int, fields[11:15]))
    return total / TICKS


def line_seconds(config: Config, folder: Path) -> tuple[float, float]:
    """Times the lines of a log.

    Returns:
      Seconds of the run per line, and CPU seconds of the trackers' processes per line.
    """
    vgg = cifar_vgg.Config(dataset="synthetic", trackers=config.trackers)
    log = logger.RunLog(folder, vgg, cifar_vgg.load(vgg).spec, [])

    def give(first: int, count: int) -> float:
        spent = 0.0
        for step in range(first, first + count):
            line = {"step": 50 * step, "epoch": step / 8, "split": "train", "loss": 1 / (step + 1)}
            line |= {"accuracy": 0.5, "gradient_norm": 1.0, "learning_rate": 0.1, "seconds": step}
            start = time.perf_counter()
            log.log(line)
            spent += time.perf_counter() - start
            time.sleep(0.005)
        return spent

    processes = [one for one in log._trackers.members.values() if isinstance(one, Process)]

    def settle() -> float:
        while any(one._done < one._sent for one in processes):
            time.sleep(0.1)
        return sum(cpu_seconds(one._process.pid) for one in processes)

    give(0, 10)
    before = settle()
    spent = give(10, config.lines)
    after = settle()
    log.close()
    return spent / config.lines, (after - before) / config.lines


def step_seconds(config: Config) -> tuple[float, float]:
    """Times steps of VGG-16; returns seconds and CPU seconds per step."""
    vgg = cifar_vgg.Config(dataset="synthetic", width_multiplier=0.25)
    data = cifar_vgg.load(vgg)
    task = cifar_vgg.build(vgg, data.spec)
    batch = next(iter(batches.padded_batches(data.train, vgg.batch_size)))
    step = jax.jit(task.step, donate_argnums=0)
    state, _ = step(jax.jit(task.init)(jax.random.key(0)), batch)
    jax.block_until_ready(state)
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(config.steps):
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    spent = time.perf_counter() - start, time.process_time() - cpu
    return spent[0] / config.steps, spent[1] / config.steps


def run(config: Config) -> dict[str, Any]:
    """Times both; returns the shares."""
    with tempfile.TemporaryDirectory() as folder:
        line, line_cpu = line_seconds(config, Path(folder))
    step, step_cpu = step_seconds(config)
    every, cores = config.log_every, os.cpu_count() or 1
    return {
        "seconds_per_line": line,
        "cpu_seconds_per_line_of_processes": line_cpu,
        "seconds_per_step": step,
        "cpu_seconds_per_step": step_cpu,
        "log_every": every,
        "percent_of_the_run": 100 * line / (every * step),
        "percent_with_processes": 100 * (line + line_cpu / cores) / (every * step),
        "percent_of_cpu": 100 * (line + line_cpu) / (every * step_cpu),
    }


if __name__ == "__main__":
    cli.main(run, Config)
