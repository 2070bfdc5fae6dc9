"""Reports of parts of the accelerator benchmark, for tests."""

import time

from experiments.benchmarks.accelerator import report

TOLD = {"only": "", "rehearse": False, "torch_python": ""}


def of(tmp_path, left=60.0, **changes):
    """Returns a report that writes to `tmp_path`, with so many seconds left."""
    spec = TOLD | {"results": str(tmp_path / "results.jsonl"), "until": time.monotonic() + left}
    return report.Report(spec | changes)


def lines(tmp_path):
    """Returns the results in `tmp_path`, by name."""
    return {line["name"]: line for line in report.read(tmp_path / "results.jsonl")}
