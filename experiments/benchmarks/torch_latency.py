"""PyTorch's side of `latency`: calls of a model of `torch_models`, eager or compiled.

    python -m experiments.benchmarks.torch_latency SPEC

SPEC is JSON: `model` and its `options`, `compile`, `shapes` of the inputs, `batch_size` and
`calls`. This module imports nothing from jaxdl, so that any Python with PyTorch and NumPy can run
it. The protocol is that of `jaxdl.tools.latency_side`. A call begins with uint8 images or int32
tokens in NumPy and ends with logits in NumPy.
"""

import json
import os
import resource
import sys
import time

import numpy as np
import torch

from experiments.benchmarks.torch_models import MODELS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WARM_UP = 3  # calls


def peak_bytes() -> int:
    """Peak memory of the device, or of this process on a CPU, in bytes."""
    if DEVICE.type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(text: str) -> None:
    """Serves one model until the end of the input."""
    spec = json.loads(text)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    model = MODELS[spec["model"]](**spec["options"]).eval()
    model = model.to(DEVICE, memory_format=torch.channels_last)
    run = torch.compile(model) if spec["compile"] else model
    random = np.random.RandomState(0)
    are_images = len(spec["shapes"][0]) == 3
    dtype, high = (np.uint8, 256) if are_images else (np.int32, 60)
    arrays = [
        random.randint(1, high, (spec["batch_size"], *shape)).astype(dtype)
        for shape in spec["shapes"]
    ]

    def call() -> np.ndarray:
        with torch.inference_mode():
            inputs = [torch.from_numpy(array).to(DEVICE) for array in arrays]
            if are_images:
                inputs = [(inputs[0].permute(0, 3, 1, 2).float() - 120) / 60]
            logits: np.ndarray = run(*inputs).cpu().numpy()
        return logits

    begin = time.perf_counter()
    for _ in range(WARM_UP):
        call()
    print(json.dumps({"warm_up": time.perf_counter() - begin}), flush=True)
    for _ in sys.stdin:
        times = []
        for _ in range(spec["calls"]):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        print(json.dumps({"times": times, "peak_bytes": peak_bytes()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
