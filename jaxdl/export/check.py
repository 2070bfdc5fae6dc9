"""Comparison of an export with the model that it was made of, in a process without jaxdl.

Shapes: N examples, T tokens, V tokens of a vocabulary.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxdl.errors import TrainingError
from jaxdl.export import alone

SIZES = (1, 77)  # batch sizes
LONGEST = 3600.0  # seconds of one process


def outputs_alone(
    folder: Path, inputs: Mapping[str, np.ndarray], form: str, sizes: tuple[int, ...] = SIZES
) -> dict[int, dict[str, np.ndarray]]:
    """Computes the outputs of an export in a process that cannot import jaxdl.

    Args:
      folder: the export, which this process has written.
      inputs: arrays [N, ...] by name.
      form: stablehlo, onnx or decoding, see `alone`.
      sizes: batch sizes.

    Returns:
      The outputs [N, ...] by batch size and name.

    Raises:
      TrainingError: the process fails.
    """
    with tempfile.TemporaryDirectory(prefix="jaxdl-export-") as exchange:
        program = Path(exchange) / "alone.py"
        shutil.copyfile(alone.__file__, program)
        for name, array in inputs.items():
            np.save(Path(exchange) / f"in-{name}.npy", np.asarray(array), allow_pickle=False)
        command = [sys.executable, "-I", "-B", program, folder.absolute(), exchange, form]
        done = subprocess.run(
            [*map(str, command), *map(str, sizes)],
            cwd=exchange,
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LONGEST,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise TrainingError(f"the export cannot be run as {form}: {last[:300]}")
        return {
            size: {
                path.stem.partition("-")[2]: np.load(path, allow_pickle=False)
                for path in Path(exchange).glob(f"{size}-*.npy")
            }
            for size in sizes
        }


def error(outputs: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """Greatest difference between outputs, relative to the greatest expected absolute value.

    Of integers, such as actions, the share that differs. Equal infinities do not differ.

    Args:
      outputs: arrays by name.
      expected: arrays by name.

    Returns:
      The largest error of all arrays; infinity if names or shapes differ, or for NaN.

    >>> error({"y": np.array([1.0, 2.0])}, {"y": np.array([1.0, 4.0])})
    0.5
    """
    if outputs.keys() != expected.keys():
        return float("inf")
    return max(_error(np.asarray(outputs[n]), np.asarray(expected[n])) for n in expected)


def _error(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return float("inf")
    if b.dtype.kind in "iub":
        return float(np.mean(a != b))
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite]) or not np.isfinite(a[finite]).all():
        return float("inf")
    scale = np.abs(b[finite]).max(initial=0)
    return float(np.abs(a[finite] - b[finite]).max(initial=0) / (scale or 1))
