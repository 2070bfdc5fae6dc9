"""Checks that everything runs: a part of `accelerator`.

Each run has its own process, and several run at a time. There are a run of every experiment, some
also in bfloat16; a resume from a checkpoint; `jaxdl verify`; the same run twice with
--deterministic; and two processes on one device.
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
LIMIT = 100  # time limit of a run, in seconds
# On a GPU programs then compile in a third of the time; no run here is timed.
UNTUNED = "--xla_gpu_autotune_level=0"
FLAGS = ["--dataset=embedded", "--batch_size=64", "--log_every=5"]
IN_SMALL = (  # one run of each kind
    *("runs/resume", "runs/deterministic", "runs/verify --kills=2", "runs/mnist_lenet bfloat16"),
    "runs/grid_qlearning",
)
SAME = 1e-3  # largest relative difference of losses that differ by rounding
Measure = Callable[["Place"], str]  # returns a line of text


class Place(NamedTuple):
    """New folder for runs, and the experiment for checks that need no particular one."""

    folder: Path
    experiment: str  # name of its module

    def command(self, *flags: str, workdir: str = "run") -> list[str]:
        """Returns the command that trains the experiment."""
        command = [sys.executable, "-m", self.experiment, *FLAGS]
        return [*command, *flags, f"--workdir={self.folder / workdir}"]

    def train(self, *flags: str, workdir: str = "run") -> dict[str, Any]:
        """Trains the experiment in a new process; returns its summary.

        Raises:
          TrainingError: the process failed; the message has its last line.
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
    """Trains an experiment; returns a line of text."""
    summary = train_here(f"experiments.{name}", flags, place.folder / "run")
    return f"{summary['step']} steps"


def succeed(command: list[str]) -> None:
    """Runs a command.

    Raises:
      TrainingError: the command failed; the message has its last line.
    """
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        raise TrainingError(f"status {done.returncode}: {last_line(done.stderr)}")


def last_line(text: str) -> str:
    """Returns the last line of a process's output."""
    return (text.strip().splitlines() or ["no message"])[-1]


def resume(place: Place) -> str:
    """Checks that 10 steps and a resume to 20 end in the same bits as 20 steps.

    Raises:
      TrainingError: a run failed, or the states differ.
    """

    def run(workdir: str, *flags: str) -> dict[str, Any]:
        return place.train("--schedule=constant", "--deterministic", *flags, workdir=workdir)

    run("run", "--num_steps=10")
    resumed = run("run", "--num_steps=20", "--resume=force")
    return same_state(resumed, run("w", "--num_steps=20"))


def same_state(first: dict[str, Any], second: dict[str, Any]) -> str:
    """Checks that two summaries have equal states; returns a line of text.

    Raises:
      TrainingError: the states differ.
    """
    digests = {summary["state_sha256"] for summary in (first, second)}
    if len(digests) > 1:
        raise TrainingError(f"two runs ended in {' and '.join(sorted(digests))}")
    return f"equal state_sha256 {digests.pop()[:16]}"


def same_loss(first: dict[str, Any], second: dict[str, Any]) -> str:
    """Checks that two summaries have equal steps and nearly equal losses; returns a line of text.

    Raises:
      TrainingError: the steps or the losses differ.
    """
    loss, expected = first["test/loss"], second["test/loss"]
    if first["step"] != second["step"] or not abs(loss - expected) <= SAME * abs(expected):
        raise TrainingError(
            f"test/loss {loss} after {first['step']} steps, {expected} after {second['step']}"
        )
    bits = "equal" if first["state_sha256"] == second["state_sha256"] else "other"
    return f"test/loss {loss:.6g} and {expected:.6g}, {bits} bits"


def verify(place: Place) -> str:
    """Checks that a run that is killed twice ends in the same bits as an uninterrupted one."""
    command = [sys.executable, "-m", "jaxdl", "verify", place.experiment, "--kills=2"]
    flags = [*FLAGS, "--num_steps=20", "--checkpoint_every=5", "--deterministic"]
    succeed([*command, f"--workdir={place.folder / 'runs'}", "--", *flags])
    return "the same bits after two kills"


def deterministic(flag: str, place: Place) -> str:
    """Checks that two runs of the same command end in the same bits."""
    flags = ("--num_steps=20", "--deterministic", flag)
    return same_state(*(place.train(*flags, workdir=workdir) for workdir in ("first", "second")))


def two_processes(place: Place) -> str:
    """Checks one run of two processes on one device; see `together`."""
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
    """Checks two runs at once on one device, each with JAX's default share of its memory."""
    flags = ("--num_steps=10", "--deterministic")
    return together(place, [place.command(*flags, workdir=name) for name in "ab"])


def together(place: Place, commands: list[list[str]]) -> str:
    """Runs two commands at once, after the same run alone.

    A command passes if it ends with the same loss as the run alone, or with an error of one line.

    Raises:
      TrainingError: a command failed in another way, or its loss differs.
    """
    alone = place.train("--num_steps=10", "--deterministic", workdir="alone")
    environ = {k: v for k, v in os.environ.items() if k != "XLA_PYTHON_CLIENT_PREALLOCATE"}
    logs = [place.folder / f"{n}.txt" for n in range(len(commands))]
    with contextlib.ExitStack() as stack:
        processes = []
        for command, log in zip(commands, logs, strict=True):
            stderr = stack.enter_context(log.open("wb"))
            process = subprocess.Popen(
                command, env=environ, stdout=subprocess.DEVNULL, stderr=stderr
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        statuses = [process.wait() for process in processes]
    ends = [last_line(log.read_text(encoding="utf-8", errors="replace")) for log in logs]
    for status, text in zip(statuses, ends, strict=True):
        if status and not (status in (1, 2) and text.startswith("error: ")):
            raise TrainingError(f"statuses {statuses}: {' / '.join(ends)}")
    done = sorted(path.parent for path in place.folder.glob("*/summary.json"))
    texts = [same_loss(logger.read_summary(p), alone) for p in done if p.name != "alone"]
    refused = [f"refused: {text}" for status, text in zip(statuses, ends, strict=True) if status]
    return "; ".join([*texts, *refused])


def work() -> list[tuple[str, Measure]]:
    """Returns the names and functions of all runs except those that need the device alone."""
    jobs: list[tuple[str, Measure]] = [
        ("runs/resume", resume),
        ("runs/deterministic", functools.partial(deterministic, "--dtype=float32")),
        ("runs/verify --kills=2", verify),
    ]
    short = list(SHORT.items())
    bfloat16 = [(f"{name} bfloat16", [*SHORT[name], "--dtype=bfloat16"]) for name in HALF]
    for name, flags in [*bfloat16[:1], *short, *bfloat16[1:]]:
        measure = functools.partial(short_run, name.partition(" ")[0], flags)
        jobs.append((f"runs/{name}", measure))
    jobs.append(
        ("runs/deterministic bfloat16", functools.partial(deterministic, "--dtype=bfloat16"))
    )
    return jobs


def child(spec: dict[str, Any], name: str, measure: Measure) -> None:
    """Measures and writes one result; runs in its own process."""
    report = Report(spec)
    if not report.rehearse:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {UNTUNED}".strip()
    cli.set_up_jax()
    experiment = "experiments.iris_mlp" if report.rehearse else "experiments.mnist_lenet"
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), experiment)
        report.attempt(name, lambda: (measure(place), performance.measured_on()), limit=LIMIT)


def supervise(report: Report, context: Any, name: str, measure: Measure) -> None:
    """Runs a child; writes the result that it cannot write if it crashes or hangs."""
    if not chosen(name, report.spec["only"]):
        return
    if report.left() <= 0:
        report.add(name, NO_TIME, SKIPPED)
        return
    process = context.Process(target=child, args=(report.spec, name, measure))
    process.start()
    # The child stops at its time limit by itself, unless it hangs in compiled code.
    process.join(min(math.inf if report.rehearse else LIMIT + 5, max(report.left(), 0) + 1))
    if process.is_alive():
        process.kill()
        process.join()
        report.add(name, "did not end in time, and was killed", STOPPED)
    elif process.exitcode:
        code = process.exitcode
        text = signal.Signals(-code).name if code < 0 else f"status {code}"
        report.add(name, f"ended by {text}", FAILED)


def main(report: Report) -> None:
    """Runs everything, several at a time, forked from a server that has imported the modules."""
    selected = [(name, call) for name, call in work() if not report.rehearse or name in IN_SMALL]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__spec__.name, *(f"experiments.{name}" for name in SHORT)])
    jobs = 8 if (os.cpu_count() or 1) >= 16 else 2
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = [
            pool.submit(supervise, report, context, name, measure) for name, measure in selected
        ]
        for future in futures:
            future.result()
    # These need most of the device's memory, which JAX reserves by default.
    if not report.rehearse:
        supervise(report, context, "runs/two runs at once", two_runs)
    supervise(report, context, "runs/one run of two processes", two_processes)


if __name__ == "__main__":
    main(Report(json.loads(sys.argv[1])))
