"""Everything runs, each in a process of its own and several at a time: a part of `accelerator`.

Every experiment, some in bfloat16, a run that goes on from a checkpoint, `jaxdl verify`, the same
run twice with --deterministic, and two processes on one card.
"""

import concurrent.futures
import contextlib
import functools
import importlib
import json
import math
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from experiments.benchmarks import performance
from experiments.benchmarks.accelerator.report import (
    FAILED,
    NO_TIME,
    SKIPPED,
    STOPPED,
    Report,
    chosen,
)
from experiments.benchmarks.accelerator.short import SHORT
from jaxdl import cli
from jaxdl.errors import TrainingError
from jaxdl.flags import parse_flags
from jaxdl.run import logger

HALF = ("mnist_lenet", "cifar_vgg", "cifar_resnet", "cifar_vit", "mnist_gan", "shakespeare_lm")
LIMIT = 100  # seconds of one run
# On a card: programs compile in a third of the time, for nothing is timed here.
UNTUNED = "--xla_gpu_autotune_level=0"
FLAGS = ["--dataset=embedded", "--batch_size=64", "--log_every=5"]
IN_SMALL = (  # one of each kind
    *("runs/resume", "runs/deterministic", "runs/verify --kills=2", "runs/mnist_lenet bfloat16"),
    "runs/grid_qlearning",
)
SAME = 1e-3  # of two losses that are the same to rounding
Measure = Callable[["Place"], str]  # returns a line


class Place(NamedTuple):
    """A new folder for runs, and the experiment that checks use when any will do."""

    folder: Path  # new
    experiment: str  # module

    def command(self, *flags: str, workdir: str = "run") -> list[str]:
        """Trains the experiment from the command line."""
        command = [sys.executable, "-m", self.experiment, *FLAGS]
        return [*command, *flags, f"--workdir={self.folder / workdir}"]

    def train(self, *flags: str, workdir: str = "run") -> dict[str, Any]:
        """Trains it; returns its summary.

        Raises:
          TrainingError: it failed, with its last word.
        """
        succeed(self.command(*flags, workdir=workdir))
        return logger.read_summary(self.folder / workdir)


def train_here(name: str, flags: list[str], folder: Path) -> dict[str, Any]:
    """Trains an experiment in this process; returns its summary."""
    module = importlib.import_module(name)
    summary: dict[str, Any] = module.run(
        parse_flags(module.Config, [*flags, f"--workdir={folder}"])
    )
    return summary


def short_run(name: str, flags: list[str], place: Place) -> str:
    """Trains an experiment."""
    summary = train_here(f"experiments.{name}", flags, place.folder / "run")
    return f"{summary['step']} steps"


def succeed(command: list[str]) -> None:
    """Runs a command.

    Raises:
      TrainingError: it failed, with its last word.
    """
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        raise TrainingError(f"status {done.returncode}: {last_line(done.stderr)}")


def last_line(text: str) -> str:
    """Returns the last line of a process's output."""
    return (text.strip().splitlines() or ["no word"])[-1]


def resume(place: Place) -> str:
    """A run of 10 steps goes on to 20, where one of 20 ends, bit by bit.

    Raises:
      TrainingError: it does not.
    """

    def run(workdir: str, *flags: str) -> dict[str, Any]:
        return place.train("--schedule=constant", "--deterministic", *flags, workdir=workdir)

    run("run", "--num_steps=10")
    return same_state(run("run", "--num_steps=20", "--resume=force"), run("w", "--num_steps=20"))


def same_state(one: dict[str, Any], other: dict[str, Any]) -> str:
    """A line about two summaries of equal states.

    Raises:
      TrainingError: they differ.
    """
    digests = {summary["state_sha256"] for summary in (one, other)}
    if len(digests) > 1:
        raise TrainingError(f"two runs ended in {' and '.join(sorted(digests))}")
    return f"equal state_sha256 {digests.pop()[:16]}"


def same_loss(one: dict[str, Any], other: dict[str, Any]) -> str:
    """A line about two summaries of equal steps and losses.

    Raises:
      TrainingError: they differ.
    """
    first, second = one["test/loss"], other["test/loss"]
    if one["step"] != other["step"] or not abs(first - second) <= SAME * abs(second):
        raise TrainingError(
            f"test/loss {first} after {one['step']} steps, {second} after {other['step']}"
        )
    bits = "equal" if one["state_sha256"] == other["state_sha256"] else "other"
    return f"test/loss {first:.6g} and {second:.6g}, {bits} bits"


def verify(place: Place) -> str:
    """The state of a run that was killed twice is that of a whole one."""
    command = [sys.executable, "-m", "jaxdl", "verify", place.experiment, "--kills=2"]
    flags = [*FLAGS, "--num_steps=20", "--checkpoint_every=5", "--deterministic"]
    succeed([*command, f"--workdir={place.folder / 'runs'}", "--", *flags])
    return "the same bits after two kills"


def deterministic(flag: str, place: Place) -> str:
    """Two processes end in the same bits."""
    flags = ("--num_steps=20", "--deterministic", flag)
    return same_state(*(place.train(*flags, workdir=workdir) for workdir in ("first", "second")))


def two_processes(place: Place) -> str:
    """One run of two processes on one card: refused with a line, or as a run of one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    joined = [f"--coordinator={address}", "--num_processes=2", "--join_timeout=60"]
    commands = [
        place.command("--num_steps=10", "--deterministic", *joined, f"--process_id={n}")
        for n in (0, 1)
    ]
    return together(place, commands)


def two_runs(place: Place) -> str:
    """Two runs at once on one card, each with JAX's own share of its memory: as above."""
    flags = ("--num_steps=10", "--deterministic")
    return together(place, [place.command(*flags, workdir=name) for name in "ab"])


def together(place: Place, commands: list[list[str]]) -> str:
    """Runs two commands at once, after the same run alone.

    Raises:
      TrainingError: one fails without a line of ours, or its result is another than that alone.
    """
    alone = place.train("--num_steps=10", "--deterministic", workdir="alone")
    environ = {k: v for k, v in os.environ.items() if k != "XLA_PYTHON_CLIENT_PREALLOCATE"}
    logs = [place.folder / f"{n}.txt" for n in range(len(commands))]
    with contextlib.ExitStack() as stack:
        processes = []
        for command, log in zip(commands, logs, strict=True):
            errors, nowhere = stack.enter_context(log.open("wb")), subprocess.DEVNULL
            process = subprocess.Popen(command, env=environ, stdout=nowhere, stderr=errors)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        statuses = [process.wait() for process in processes]
    said = [last_line(log.read_text(encoding="utf-8", errors="replace")) for log in logs]
    for status, text in zip(statuses, said, strict=True):
        if status and not (status in (1, 2) and text.startswith("error: ")):
            raise TrainingError(f"statuses {statuses}: {' / '.join(said)}")
    done = sorted(path.parent for path in place.folder.glob("*/summary.json"))
    texts = [same_loss(logger.read_summary(p), alone) for p in done if p.name != "alone"]
    refused = [f"refused: {text}" for status, text in zip(statuses, said, strict=True) if status]
    return "; ".join([*texts, *refused])


def work() -> list[tuple[str, Measure]]:
    """All of it but what must be alone on the card, with names."""
    found: list[tuple[str, Measure]] = [
        ("runs/resume", resume),
        ("runs/deterministic", functools.partial(deterministic, "--dtype=float32")),
        ("runs/verify --kills=2", verify),
    ]
    short = list(SHORT.items())
    half = [(f"{name} bfloat16", [*SHORT[name], "--dtype=bfloat16"]) for name in HALF]
    for name, flags in [*half[:1], *short, *half[1:]]:
        measure = functools.partial(short_run, name.partition(" ")[0], flags)
        found.append((f"runs/{name}", measure))
    halves = functools.partial(deterministic, "--dtype=bfloat16")
    return [*found, ("runs/deterministic bfloat16", halves)]


def child(spec: dict[str, Any], name: str, measure: Measure) -> None:
    """Writes one result; in a process of its own."""
    report = Report(spec)
    if not report.rehearse:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {UNTUNED}".strip()
    cli.set_up_jax()
    experiment = "experiments.iris_mlp" if report.rehearse else "experiments.mnist_lenet"
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), experiment)
        report.attempt(name, lambda: (measure(place), performance.measured_on()), limit=LIMIT)


def supervise(report: Report, context: Any, name: str, measure: Measure) -> None:
    """Runs a child, and writes what it cannot: that it crashed, or hung in compiled code."""
    if not chosen(name, report.spec["only"]):
        return
    if report.left() <= 0:
        report.add(name, NO_TIME, SKIPPED)
        return
    process = context.Process(target=child, args=(report.spec, name, measure))
    process.start()
    # The child gives up by itself, unless it is in compiled code.
    process.join(min(math.inf if report.rehearse else LIMIT + 5, max(report.left(), 0) + 1))
    if process.is_alive():
        process.kill()
        process.join()
        report.add(name, "did not end in time, and was killed", STOPPED)
    elif process.exitcode:
        how = process.exitcode
        text = signal.Signals(-how).name if how < 0 else f"status {how}"
        report.add(name, f"ended by {text}", FAILED)


def main(report: Report) -> None:
    """Runs all of it, several at a time, from a process that has imported what they need."""
    todo = [(name, call) for name, call in work() if not report.rehearse or name in IN_SMALL]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__spec__.name, *(f"experiments.{name}" for name in SHORT)])
    jobs = 8 if (os.cpu_count() or 1) >= 16 else 2
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(supervise, report, context, name, measure) for name, measure in todo]
        for future in futures:
            future.result()
    # They have most of a card's memory to themselves, as JAX asks for it.
    if not report.rehearse:
        supervise(report, context, "runs/two runs at once", two_runs)
    supervise(report, context, "runs/one run of two processes", two_processes)


if __name__ == "__main__":
    main(Report(json.loads(sys.argv[1])))
