"""Specs for parts of the accelerator's measurement in tests, and their results."""

import time

from experiments.benchmarks.accelerator import report

TOLD = {"only": "", "rehearse": False, "torch_python": ""}


def of(tmp_path, left=60.0, **changes):
    spec = TOLD | {"results": str(tmp_path / "results.jsonl"), "until": time.monotonic() + left}
    return report.Report(spec | changes)


def lines(tmp_path):
    return {line["name"]: line for line in report.read(tmp_path / "results.jsonl")}
