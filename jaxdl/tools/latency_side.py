"""One process of `latency`: a model that answers each line of its input with times of calls.

`latency` starts it with a SPEC in JSON: `folder`, `form` (jaxdl for a run, stablehlo or onnx for an
export), `batch_size` and `calls`; of a run also `checkpoint`, of ONNX `sha256` and `inputs`. It
compiles and warms up, prints a line of JSON, and answers each line with the seconds of
so many calls. A call begins with NumPy arrays and ends with NumPy arrays.
"""

import hashlib
import json
import math
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import files
from jaxdl.errors import UserError, importing, shortened

WARM_UP = 3  # calls
LARGEST_INPUT = 1 << 28  # entries
LARGEST_FILE = 1 << 31  # bytes of an ONNX model, the limit of its format
DTYPES = ("bool", "uint8", "int32", "float32")  # as in `jaxdl.data.spec`, which imports JAX
SAFE_CALLS = {"shape_assertion"}  # custom calls that a program of a stranger may have
Call = Callable[[dict[str, np.ndarray]], Any]


def main(text: str) -> None:
    """Serves one model until the end of the input."""
    spec = json.loads(text)
    loads = {"jaxdl": load_run, "stablehlo": load_stablehlo, "onnx": load_onnx}
    call, shapes = loads[spec["form"]](spec)
    batch = make_batch(shapes, spec["batch_size"])
    begin = time.perf_counter()
    for _ in range(WARM_UP):
        call(batch)
    print(json.dumps({"warm_up": time.perf_counter() - begin}), flush=True)
    for _ in sys.stdin:
        times = []
        for _ in range(spec["calls"]):
            begin = time.perf_counter()
            call(batch)
            times.append(time.perf_counter() - begin)
        print(json.dumps({"times": times, "peak_bytes": peak_bytes()}), flush=True)


def make_batch(shapes: dict[str, Any], size: int) -> dict[str, np.ndarray]:
    """Makes random inputs.

    Args:
      shapes: `shape` and `dtype` of each entry, where a text stands for the batch size.
      size: the batch size.

    Raises:
      UserError: an entry is too large, or of another type than data sets have.
    """
    random, batch = np.random.RandomState(0), {}
    for name, entry in shapes.items():
        shape = [size if isinstance(n, str) else n for n in entry["shape"]]
        dtype = entry["dtype"]
        if min(shape, default=0) < 0 or math.prod(shape) > LARGEST_INPUT or dtype not in DTYPES:
            text = f"{shortened(dtype)}{shortened(shape)}"
            raise UserError(f"the input {shortened(name)} is {text}: give a smaller --batch_sizes")
        if dtype == "float32":
            batch[name] = random.normal(size=shape).astype(np.float32)
        else:
            batch[name] = random.randint(0, 2, shape).astype(dtype)
    return batch


def peak_bytes() -> int:
    """Peak memory of the device, or of this process on a CPU, in bytes."""
    jax = sys.modules.get("jax")
    if jax is not None and jax.default_backend() != "cpu":
        return int((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def load_run(spec: dict[str, Any]) -> tuple[Call, dict[str, Any]]:
    """Loads the model of a run's best checkpoint; also the inputs' shapes."""
    import jax

    from jaxdl.export import card
    from jaxdl.run import restore, run_folder

    folder = Path(spec["folder"])
    run = run_folder.open_run(folder, spec.get("checkpoint", run_folder.BEST))
    restored = restore.restore(run)
    example = restored.task.predict.inputs(restored.spec.example())
    shapes = card.describe_shapes(example)
    for entry in shapes.values():
        entry["shape"][0] = "b"
    predict, state = jax.jit(restored.task.predict), restored.saved.state
    return lambda batch: jax.device_get(predict(state, batch)), shapes


def load_stablehlo(spec: dict[str, Any]) -> tuple[Call, dict[str, Any]]:
    """Loads the program `predict` of an export, which may be a stranger's.

    Raises:
      UserError: a file is not what the card says, or the program calls native code.
    """
    import jax

    from jaxdl.export import card, tensor_file

    folder = Path(spec["folder"])
    described = card.read(folder)
    program = described["programs"]["predict"]
    content = card.read_file(folder, described, program["file"])
    arrays = tensor_file.loads(
        card.read_file(folder, described, "weights.safetensors"),
        str(folder / "weights.safetensors"),
    )
    try:
        exported = jax.export.deserialize(bytearray(content))
        module = exported.mlir_module()
    except Exception as error:  # of damaged bytes
        raise UserError(f"{folder / program['file']} is not a program: export it again") from error
    calls = set(re.findall(r"custom_call\s+@\"?([^\s(\"]+)", module)) - SAFE_CALLS
    if calls:
        raise UserError(
            f"{folder / program['file']} calls native code ({shortened(', '.join(sorted(calls)))}):"
            " name an export that you have made yourself"
        )
    run, weights = jax.jit(exported.call), jax.device_put(arrays)
    return lambda batch: jax.device_get(run(weights, batch)), program["inputs"]


def load_onnx(spec: dict[str, Any]) -> tuple[Call, dict[str, Any]]:
    """Loads the model of an export into ONNX Runtime, without JAX, for its memory to be its own.

    Raises:
      UserError: the model is not what the card says.
    """
    path = Path(spec["folder"]) / "model.onnx"
    content = files.read_bytes(path, LARGEST_FILE)
    if hashlib.sha256(content).hexdigest() != spec["sha256"]:
        raise UserError(f"{path} is not what the card says (its SHA-256 is another): export again")
    with importing("onnxruntime"):
        import onnxruntime
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, batch), spec["inputs"]
