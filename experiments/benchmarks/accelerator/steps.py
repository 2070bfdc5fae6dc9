"""Steps beside PyTorch on the same card, after the card's ceilings: a part of `accelerator`.

Where there are cores enough, several cases start and compile at once; they are timed when all are
ready, one after the other. Both sides keep TensorFloat-32's ten bits of a float32 product, or
neither does; a case whose sides differ fails. Where PyTorch is missing, jaxdl is timed alone.
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
LIMIT = 120  # seconds until sides are ready, so that one that hangs leaves time for others
CORES = 4  # of a case's sides, while they compile
COMPILERS = {"TORCHINDUCTOR_COMPILE_THREADS": str(CORES)}  # else as many as cores, for each case
PAUSE = 0.02  # seconds between turns on a card
KERNELS = 20  # of a step that are kept
CEILINGS = {"size": 8192, "bytes": 2**30}
IN_SMALL = {"size": 256, "bytes": 2**20}
COMMAND = "python -m experiments.benchmarks.accelerator"


def main(report: Report) -> None:
    """Measures the ceilings, and one case after the other."""
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
    todo = list(cases.ACCELERATED)
    if report.rehearse:
        few = [case for case in todo if (case.model, case.dtype) == ("lenet5", "float32")]
        todo = [case._replace(batch_size=2, steps=1) for case in few]
    todo = [case for case in todo if chosen(name(case), report.spec["only"])]
    at_once = max(1, (os.cpu_count() or 1) // CORES)
    for start in range(0, len(todo), at_once):
        together(todo[start : start + at_once], names, turns, peaks, report)


def together(
    todo: Sequence[Case], names: Sequence[str], turns: int, peaks: dict[str, float], report: Report
) -> None:
    """Starts the sides of these cases, waits until all are ready, and times case after case."""
    if report.left() <= 0:
        for case in todo:
            report.add(name(case), NO_TIME, SKIPPED)
        return
    with contextlib.ExitStack() as stack:
        started = {
            case: stack.enter_context(
                beside_torch.sides(case, names, report.spec["torch_python"], COMPILERS)
            )
            for case in todo
        }
        pair.wait([side for sides in started.values() for side in sides], min(LIMIT, report.left()))
        for case, sides in started.items():
            if len(sides) > 1:
                measure = functools.partial(beside, case, sides, turns, peaks, report)
            else:
                measure = functools.partial(alone, case, sides, turns)
            report.attempt(name(case), measure, limit=LIMIT)


def ceilings_command(spec: str) -> list[str]:
    """Command that measures peak rates, in a process that frees the device at its end."""
    return [sys.executable, "-m", "experiments.benchmarks.accelerator.ceilings", spec]


def name(case: Case) -> str:
    """Name of a case for --only."""
    return f"steps/{case.model}-{case.batch_size}-{case.dtype}"


def beside(
    case: Case, sides: Sequence[pair.Side], turns: int, peaks: dict[str, float], report: Report
) -> tuple[str, dict[str, Any]]:
    """Times jaxdl and PyTorch in turns."""
    entry = beside_torch.compare(case, sides, turns, PAUSE)
    kernels = {}
    for side in sides:
        try:
            kernels[side.name] = longest(side)
        except UserError as error:  # the figure is there without them
            report.add(f"{name(case)} kernels", str(error), FAILED)
    entry["command"] = f"{COMMAND} --only={name(case)}"
    if peaks:
        entry["peak_flops"] = peaks[case.dtype]
    return performance.line(entry), {"entries": [["cases", entry]], "kernels": kernels}


def longest(side: pair.Side) -> list[list[Any]]:
    """The kernels that take most of a side's step on a card, after a line for all of them."""
    if side.report["backend"] != "gpu":
        return []
    kernels = sorted(side.ask(list, "kernels"), key=lambda kernel: -kernel[1])
    seconds, launches = (sum(kernel[n] for kernel in kernels) for n in (1, 2))
    return [["all", seconds, launches], *kernels[:KERNELS]]


def alone(case: Case, sides: Sequence[pair.Side], turns: int) -> tuple[str, dict[str, Any]]:
    """Times jaxdl."""
    seconds = pair.take_turns(sides, turns, PAUSE)["jaxdl"]
    what = f"`{case.model}`, a step of {case.batch}, {case.dtype}"
    entry = performance.cost(what, seconds, "s", f"{COMMAND} --only={name(case)}", sides[0].report)
    milliseconds = 1e3 * entry["value"]["median"]
    return f"jaxdl {milliseconds:.3g} ms", {"entries": [["costs", entry]]}


if __name__ == "__main__":
    main(Report(json.loads(sys.argv[1])))
