"""Step times compared with PyTorch on the same device, and peak rates: a part of `accelerator`.

With enough cores, several cases start and compile at once; when all are ready they are timed one
after the other. A case fails if only one of its sides computes float32 products in TensorFloat-32.
Without PyTorch, jaxdl is timed alone.
"""

import contextlib
import functools
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks import beside_torch, cases, pair, performance
from experiments.benchmarks.accelerator.report import FAILED, NO_TIME, SKIPPED, Report, chosen
from experiments.benchmarks.cases import Case
from jaxdl.errors import UserError

TURNS = 7
LIMIT = 120  # seconds for sides to become ready; one that hangs must leave time for others
CORES = 4  # cores for the sides of a case while they compile
COMPILERS = {"TORCHINDUCTOR_COMPILE_THREADS": str(CORES)}  # default: all cores, for each case
PAUSE = 0.02  # pause between turns on an accelerator, in seconds
KERNELS = 20  # number of kernels of a step in the results
CEILINGS = {"size": 8192, "bytes": 2**30}
IN_SMALL = {"size": 256, "bytes": 2**20}
COMMAND = "python -m experiments.benchmarks.accelerator"


def main(report: Report) -> None:
    """Measures the peak rates, and then the cases one by one."""
    peaks: dict[str, float] = {}
    turns = 2 if report.rehearse else TURNS

    def ceilings() -> tuple[str, dict[str, Any]]:
        spec = json.dumps(IN_SMALL if report.rehearse else CEILINGS)
        with pair.started("ceilings", ceilings_command(spec)) as side:
            peaks.update(side.report["peaks"])
            text = ", ".join(f"{name} {rate / 1e12:.3g} T" for name, rate in peaks.items())
            return f"{text} (FLOP/s; bytes/s)", {"entries": side.report["entries"]}

    report.attempt("steps/ceilings", ceilings, limit=LIMIT)
    names = ["jaxdl", "torch"]
    try:
        beside_torch.command("torch", "", report.spec["torch_python"])
    except UserError as error:
        report.add("steps/torch", f"jaxdl is timed alone: {error}", SKIPPED)
        del names[1]
    selected = list(cases.ACCELERATED)
    if report.rehearse:
        few = [case for case in selected if (case.model, case.dtype) == ("lenet5", "float32")]
        selected = [case._replace(batch_size=2, steps=1) for case in few]
    selected = [case for case in selected if chosen(name(case), report.spec["only"])]
    at_once = max(1, (os.cpu_count() or 1) // CORES)
    for start in range(0, len(selected), at_once):
        together(selected[start : start + at_once], names, turns, peaks, report)


def together(
    group: Sequence[Case], names: Sequence[str], turns: int, peaks: dict[str, float], report: Report
) -> None:
    """Starts the sides of all cases of a group, waits until they are ready, and times each case.

    Args:
      group: the cases.
      names: the names of the sides, "jaxdl" first.
      turns: the number of times that each side is timed.
      peaks: the peak rates, by dtype.
      report: receives the results.
    """
    if report.left() <= 0:
        for case in group:
            report.add(name(case), NO_TIME, SKIPPED)
        return
    with contextlib.ExitStack() as stack:
        started = {
            case: stack.enter_context(
                beside_torch.sides(case, names, report.spec["torch_python"], COMPILERS)
            )
            for case in group
        }
        pair.wait([side for sides in started.values() for side in sides], min(LIMIT, report.left()))
        for case, sides in started.items():
            if len(sides) > 1:
                measure = functools.partial(beside, case, sides, turns, peaks, report)
            else:
                measure = functools.partial(alone, case, sides, turns)
            report.attempt(name(case), measure, limit=LIMIT)


def ceilings_command(spec: str) -> list[str]:
    """Returns the command that measures the peak rates; its process frees the device at its end."""
    return [sys.executable, "-m", "experiments.benchmarks.accelerator.ceilings", spec]


def name(case: Case) -> str:
    """Returns the name of a case for --only."""
    return f"steps/{case.model}-{case.batch_size}-{case.dtype}"


def beside(
    case: Case, sides: Sequence[pair.Side], turns: int, peaks: dict[str, float], report: Report
) -> tuple[str, dict[str, Any]]:
    """Times jaxdl and PyTorch in turns; returns a line of text and figures."""
    entry = beside_torch.compare(case, sides, turns, PAUSE)
    kernels = {}
    for side in sides:
        try:
            kernels[side.name] = longest(side)
        except UserError as error:  # the time is a result without the kernels
            report.add(f"{name(case)} kernels", str(error), FAILED)
    entry["command"] = f"{COMMAND} --only={name(case)}"
    if peaks:
        entry["peak_flops"] = peaks[case.dtype]
    return performance.line(entry), {"entries": [["cases", entry]], "kernels": kernels}


def longest(side: pair.Side) -> list[list[Any]]:
    """Returns the kernels that take most of a side's step, after a row "all" with their sum.

    The list is empty if the side does not run on a GPU.
    """
    if side.report["backend"] != "gpu":
        return []
    kernels = sorted(side.ask(list, "kernels"), key=lambda kernel: -kernel[1])
    seconds, launches = (sum(kernel[n] for kernel in kernels) for n in (1, 2))
    return [["all", seconds, launches], *kernels[:KERNELS]]


def alone(case: Case, sides: Sequence[pair.Side], turns: int) -> tuple[str, dict[str, Any]]:
    """Times jaxdl without PyTorch; returns a line of text and figures."""
    seconds = pair.take_turns(sides, turns, PAUSE)["jaxdl"]
    text = f"`{case.model}`, a step of {case.batch}, {case.dtype}"
    entry = performance.cost(text, seconds, "s", f"{COMMAND} --only={name(case)}", sides[0].report)
    milliseconds = 1e3 * entry["value"]["median"]
    return f"jaxdl {milliseconds:.3g} ms", {"entries": [["costs", entry]]}


if __name__ == "__main__":
    main(Report(json.loads(sys.argv[1])))
