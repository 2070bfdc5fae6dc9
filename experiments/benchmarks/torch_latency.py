"""PyTorch's side of `latency`: calls of a model of `torch_models`, eager or compiled.

    python -m experiments.benchmarks.torch_latency SPEC

SPEC is JSON: `model`, `compile`, `shape` of one input, `batch_size` and `calls`. This module
imports nothing from jaxdl, so that any Python with PyTorch and NumPy can run it. The protocol is
that of `jaxdl.tools.latency_side`. A call begins with uint8 images in NumPy and ends with logits in
NumPy.
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
    model = MODELS[spec["model"]]().eval().to(DEVICE, memory_format=torch.channels_last)
    run = torch.compile(model) if spec["compile"] else model
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (spec["batch_size"], *spec["shape"])).astype(np.uint8)

    def call() -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(images).to(DEVICE).permute(0, 3, 1, 2).float()
            logits: np.ndarray = run((x - 120) / 60).cpu().numpy()
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
