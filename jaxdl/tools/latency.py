"""The `latency` command: time of a prediction, of a run's model or of an export's forms.

Each form is a process of its own. All are warm before the first turn, and take turns: one works
while the others wait.
"""

import contextlib
import dataclasses
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from jaxdl import import_path
from jaxdl.console import say
from jaxdl.errors import UserError, shortened

CARD = "card.json"
LARGEST_BATCH = 65536
ERROR = "error: "  # start of a line of `cli.guard`
# Starts a side. `cli` is above this module, which therefore does not import it.
START = """
import sys
from jaxdl import cli
from jaxdl.tools.latency_side import main
if '"form": "onnx"' not in sys.argv[1]:
    cli.set_up_jax()
sys.exit(cli.guard(lambda: main(sys.argv[1])))
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
      batch_sizes: numbers of examples of a call.
      turns: turns of each form.
      calls: calls of a turn.
    """

    batch_sizes: tuple[int, ...] = (1, 8, 64)
    turns: int = 5
    calls: int = 50

    def __post_init__(self) -> None:
        """Checks the limits.

        Raises:
          UserError: a number is out of its limits.
        """
        limits = [("batch_sizes", size, LARGEST_BATCH) for size in self.batch_sizes]
        limits += [("turns", self.turns, 1000), ("calls", self.calls, 100_000)]
        for name, value, most in limits:
            if not 1 <= value <= most:
                raise UserError(f"--{name}={value}: give a number from 1 to {most:,}")
        if not self.batch_sizes:
            raise UserError("--batch_sizes is empty: give numbers such as 1,8,64")


def parse_sizes(text: str) -> tuple[int, ...]:
    """Parses a comma-separated list of batch sizes.

    Raises:
      UserError: a part is not a whole number.

    >>> parse_sizes("1,8")
    (1, 8)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise UserError(f"--batch_sizes={shortened(text)}: give numbers such as 1,8,64")
    return tuple(map(int, parts))


def latency(folder: Path, options: Options) -> list[dict[str, Any]]:
    """Measures the latency of a run's model, or of each form of an export.

    Args:
      folder: a run folder or an export.
      options: batch sizes, turns and calls.

    Returns:
      For each batch size and form the 50th, 90th and 99th percentile in milliseconds, examples per
      second by the median, and the peak memory in bytes.

    Raises:
      UserError: the folder is neither, or a form cannot be loaded.
    """
    rows = []
    for size in options.batch_sizes:
        with contextlib.ExitStack() as stack:
            sides = {
                form: stack.enter_context(_side(folder, form, size, options.calls))
                for form in forms(folder)
            }
            for form, side in sides.items():
                _answer(side, form)  # ready
            answers: dict[str, list[Any]] = {form: [] for form in sides}
            for _ in range(options.turns):
                for form, side in sides.items():
                    assert side.process.stdin
                    with contextlib.suppress(BrokenPipeError):
                        side.process.stdin.write("turn\n")
                        side.process.stdin.flush()
                    answers[form].append(_answer(side, form))
        for form, turns in answers.items():
            times = np.concatenate([turn["times"] for turn in turns])
            rows.append(summary(form, size, times, max(turn["peak_bytes"] for turn in turns)))
    return rows


def summary(form: str, size: int, seconds: np.ndarray, peak: int) -> dict[str, Any]:
    """Summarises the times of calls.

    Args:
      form: name of the form.
      size: batch size.
      seconds: times of the calls.
      peak: peak memory in bytes.
    """
    p50, p90, p99 = (float(np.percentile(seconds, q)) for q in (50, 90, 99))
    return {
        "form": form,
        "batch_size": size,
        "p50_ms": 1000 * p50,
        "p90_ms": 1000 * p90,
        "p99_ms": 1000 * p99,
        "examples_per_second": size / p50,
        "peak_bytes": peak,
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a table of measurements."""
    head = f"{'form':<14}{'batch':>6}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}"
    lines = [f"{head}{'examples/s':>13}{'peak MiB':>10}"]
    for row in rows:
        times = "".join(f"{row[name]:>10.3f}" for name in ("p50_ms", "p90_ms", "p99_ms"))
        speed, peak = row["examples_per_second"], row["peak_bytes"] / 2**20
        lines.append(f"{row['form']:<14}{row['batch_size']:>6}{times}{speed:>13,.0f}{peak:>10,.0f}")
    return lines


def forms(folder: Path) -> list[str]:
    """Forms that a folder has: those of an export, or `jaxdl` for a run folder."""
    if not (folder / CARD).is_file():
        return ["jaxdl"]
    has_onnx = (folder / "model.onnx").is_file() and importlib.util.find_spec("onnxruntime")
    found = ["stablehlo"] if (folder / "predict.stablehlo").is_file() else []
    found += ["onnx"] if has_onnx else []
    if not found:
        raise UserError(f"{folder} has no program: export it with --format=stablehlo,safetensors")
    return found


def side_command(
    folder: Path, form: str, size: int, calls: int, checkpoint: str = "best"
) -> list[str]:
    """Command that starts the process of a form.

    Args:
      folder: run folder or export.
      form: jaxdl, stablehlo or onnx.
      size: batch size.
      calls: calls of a turn.
      checkpoint: checkpoint of a run.
    """
    spec = {"folder": str(folder.absolute()), "form": form, "batch_size": size, "calls": calls}
    if form == "jaxdl":
        spec |= {"checkpoint": checkpoint}
    if form == "onnx":
        from jaxdl.export import card

        described = card.read(folder)
        inputs = described["programs"]["predict"]["inputs"]
        spec |= {"sha256": described["files"].get("model.onnx"), "inputs": inputs}
    return [sys.executable, "-P", "-c", START, json.dumps(spec)]


class Side(NamedTuple):
    """Process of a form.

    Attributes:
      process: the process.
      errors: file of its standard error.
    """

    process: subprocess.Popen[str]
    errors: IO[str]


@contextlib.contextmanager
def _side(folder: Path, form: str, size: int, calls: int) -> Iterator[Side]:
    """Starts the process of a form; it ends with the block. Then its warnings are shown."""
    command = side_command(folder, form, size, calls)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(
            command, **pipes, stderr=errors, encoding="utf-8", env=import_path.environment()
        )
        try:
            yield Side(process, errors)
        finally:
            assert process.stdin
            assert process.stdout
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
            errors.seek(0)
            for line in errors:
                if not line.startswith(ERROR):
                    say(line.rstrip("\n"))


def _answer(side: Side, form: str) -> dict[str, Any]:
    """Reads a line of JSON from a process.

    Raises:
      UserError: the process has ended; the error is its own.
    """
    assert side.process.stdout
    for line in side.process.stdout:
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                return value
    side.process.wait()
    side.errors.seek(0)
    own = [line.removeprefix(ERROR) for line in side.errors if line.startswith(ERROR)]
    if own:
        raise UserError(own[-1].strip())
    raise UserError(f"the process of {form} has ended: its message above says why")
