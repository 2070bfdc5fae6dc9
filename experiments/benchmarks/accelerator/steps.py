"""Steps beside PyTorch on the same card, after the card's ceilings: a part of `accelerator`.

Both sides keep TensorFloat-32's ten bits of a float32 product, or neither does; a case whose sides
differ fails. Where PyTorch is missing, jaxdl is timed alone.
"""

import functools
import json
import sys
from typing import Any

from experiments.benchmarks import beside_torch, cases, pair, performance
from experiments.benchmarks.accelerator.report import SKIPPED, Report
from experiments.benchmarks.cases import Case
from jaxdl.errors import UserError

TURNS = 7
LIMIT = 120  # seconds of a case, so that one that hangs leaves time for others
CEILINGS = {"size": 8192, "bytes": 2**30}
IN_SMALL = {"size": 256, "bytes": 2**20}
QUICKEST = ("lenet5", "lstm", "vit", "transformer", "vgg16", "resnet18", "resnet50")
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
    measure = functools.partial(beside, turns=turns, peaks=peaks, report=report)
    try:
        beside_torch.command("torch", "", report.spec["torch_python"])
    except UserError as error:
        report.add("steps/torch", f"jaxdl is timed alone: {error}", SKIPPED)
        measure = functools.partial(alone, turns=turns)
    chosen = list(cases.ACCELERATED)
    if report.rehearse:  # what compiles in the least time first
        chosen = [case._replace(batch_size=2, steps=1) for case in chosen]
        chosen.sort(key=lambda case: QUICKEST.index(case.model))
        # Which PyTorch lacks on many CPUs.
        chosen = [case for case in chosen if (case.model, case.dtype) != ("lstm", "bfloat16")]
    for case in chosen:
        report.attempt(name(case), functools.partial(measure, case), limit=LIMIT)


def ceilings_command(spec: str) -> list[str]:
    """What measures the card's ceilings, in a process that gives the card back."""
    return [sys.executable, "-m", "experiments.benchmarks.accelerator.ceilings", spec]


def name(case: Case) -> str:
    """What --only chooses a case by."""
    return f"steps/{case.model}-{case.batch_size}-{case.dtype}"


def beside(
    case: Case, turns: int, peaks: dict[str, float], report: Report
) -> tuple[str, dict[str, Any]]:
    """Times jaxdl and PyTorch in turns."""
    entry = beside_torch.measure(case, turns, report.spec["torch_python"])
    entry["command"] = f"{COMMAND} --only={name(case)}"
    if peaks:
        entry["peak_flops"] = peaks[case.dtype]
    return performance.line(entry), {"entries": [["cases", entry]]}


def alone(case: Case, turns: int) -> tuple[str, dict[str, Any]]:
    """Times jaxdl."""
    with beside_torch.sides(case, ("jaxdl",), "") as (side,):
        seconds = pair.take_turns([side], turns)["jaxdl"]
        what = f"`{case.model}`, a step of {case.batch}, {case.dtype}"
        command = f"{COMMAND} --only={name(case)}"
        entry = performance.cost(what, seconds, "s", command, side.report)
    milliseconds = 1e3 * entry["value"]["median"]
    return f"jaxdl {milliseconds:.3g} ms", {"entries": [["costs", entry]]}


if __name__ == "__main__":
    main(Report(json.loads(sys.argv[1])))
