"""PyTorch's side of a benchmark: the same models, trained in the way that suits PyTorch best.

    python -m experiments.benchmarks.torch_side SPEC

Uses channels last, fused optimizers, one thread per core, and on a GPU `torch.compile` for model
and loss (with CUDA graphs for LeNet-5, whose kernels are short). Steps use one batch, which is
normalised beforehand and stays in memory. An epoch uses a DataLoader that indexes and normalises
whole batches; without workers and collation it takes a third of the time of the default. There is
no augmentation, no schedule and no metric.

This module imports nothing from jaxdl, so that any Python with PyTorch and NumPy can run it.
`beside_torch` starts this process and writes SPEC; `pair` describes the protocol.
"""

import functools
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from experiments.benchmarks.torch_models import MODELS, WINDOW

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WARM_UP = 2  # untimed turns; the first one compiles
SMOOTHED = ("vgg16", "resnet18", "resnet50", "vit", "transformer")  # label smoothing of 0.1
UNCLIPPED = ("vgg16", "resnet18", "resnet50", "lenet5")
CONVOLUTIONAL = ("vgg16", "resnet18", "resnet50")


def optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """Returns the optimizer of the experiment: Nesterov for VGG and ResNet, else Adam or AdamW.

    Weight decay applies to kernels only. It is part of the gradient in SGD, decoupled in AdamW.
    """
    parameters = list(model.parameters())
    if name in ("lenet5", "transformer"):
        return torch.optim.Adam(parameters, lr=0.002 if name == "lenet5" else 1e-3, fused=True)
    kernels = [p for p in parameters if p.ndim > 1]
    rest: dict[str, Any] = {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0}
    if name in CONVOLUTIONAL:
        # The experiment decays by 5e-3 outside the gradient.
        decayed = {"params": kernels, "weight_decay": 5e-4}
        return torch.optim.SGD([decayed, rest], lr=0.1, momentum=0.9, nesterov=True, fused=True)
    decayed = {"params": kernels, "weight_decay": 0.05 if name == "vit" else 0.1}
    return torch.optim.AdamW([decayed, rest], lr=1e-3, fused=True)


def inputs(arrays: Any) -> tuple[Callable[..., Any], TensorDataset]:
    """Returns a function that prepares a batch as (inputs of the model, labels), and the split."""
    tensors = {n: torch.from_numpy(array).to(DEVICE) for n, array in arrays.items()}
    if "text" in tensors:  # overlapping windows, one character apart
        windows = tensors["text"].unfold(0, WINDOW + 1, 1)
        return lambda x: ((x[:, :-1].contiguous(),), x[:, 1:]), TensorDataset(windows)
    if "source" in tensors:
        sentences = TensorDataset(tensors["source"], tensors["target"])
        return lambda x, y: ((x, y[:, :-1]), y[:, 1:]), sentences
    images = tensors["image"].permute(0, 3, 1, 2)
    std, mean = torch.std_mean(images.float())

    def normalised(x: torch.Tensor, y: torch.Tensor) -> tuple[tuple[torch.Tensor], torch.Tensor]:
        return (((x.float() - mean) / std).contiguous(memory_format=torch.channels_last),), y

    return normalised, TensorDataset(images, tensors["label"])


def side(spec: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], float]]:
    """Builds and warms up the side; returns the report, and a turn that returns its seconds.

    They are seconds per step, or per epoch where `spec["steps"]` is 0.
    """
    name, batch_size, steps = spec["model"], spec["batch_size"], spec["steps"]
    if name == "ppo":
        from experiments.benchmarks import torch_agent  # needs gymnasium

        parameters, update = torch_agent.side(batch_size, steps)
        return described(parameters, "cpu"), warmed(update)
    model = MODELS[name]().to(DEVICE, memory_format=torch.channels_last)
    update_rule = optimizer(name, model)
    with np.load(spec["data"], allow_pickle=False) as arrays:
        prepare, split = inputs(arrays)

    def objective(x: tuple[torch.Tensor, ...], y: torch.Tensor) -> torch.Tensor:
        logits = model(*x).flatten(0, -2)
        smoothing = 0.1 if name in SMOOTHED else 0.0
        return nn.functional.cross_entropy(logits, y.flatten(), label_smoothing=smoothing)

    if DEVICE.type == "cuda":
        mode = "reduce-overhead" if name == "lenet5" else "default"
        objective = torch.compile(objective, mode=mode)

    def step(x: tuple[torch.Tensor, ...], y: torch.Tensor) -> None:
        update_rule.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, spec["dtype"] == "bfloat16"):
            loss = objective(x, y)
        loss.backward()
        if name not in UNCLIPPED:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        update_rule.step()

    order = BatchSampler(RandomSampler(split), batch_size, drop_last=True)
    loader = DataLoader(split, sampler=order, batch_size=None)
    fixed_batch = prepare(*split[:batch_size])

    def turn() -> float:
        began = time.perf_counter()
        if steps:
            for _ in range(steps):
                step(*fixed_batch)
        else:
            for batch in loader:
                step(*prepare(*batch))
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / (steps or 1)

    # PyTorch's recurrent layers have two biases, of which only the sum matters, except in the last
    # gate of a GRU. The redundant ones are not counted as parameters.
    redundant = sum(
        p.numel() * (2 if name == "gru" else 3) // 3
        for n, p in model.named_parameters()
        if "bias_hh" in n
    )
    parameters = sum(p.numel() for p in model.parameters()) - redundant
    warm = warmed(turn)  # before `described`, which reads the peak memory
    return described(parameters, "gpu" if DEVICE.type == "cuda" else "cpu"), warm


def warmed(turn: Callable[[], float]) -> Callable[[], float]:
    """Runs the untimed turns; returns `turn`.

    Peak memory is reset before each of them, so that it excludes the algorithms that the first turn
    tries out.
    """
    for _ in range(WARM_UP):
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        turn()
    return turn


def described(parameters: int, backend: str) -> dict[str, Any]:
    """Returns the report of the side."""
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    report = {"parameters": parameters, "backend": backend, "versions": versions, "tf32": tf32()}
    if backend == "gpu":
        report["memory_bytes"] = torch.cuda.max_memory_allocated()
    return report


def kernels(turn: Callable[[], Any], steps: int) -> list[list[Any]]:
    """Profiles a turn on a GPU; returns [name, seconds per step, launches per step] per kernel."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        turn()
    totals: dict[str, list[float]] = {}
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            total = totals.setdefault(event.name, [0.0, 0.0])
            total[0] += 1e-6 * event.device_time_total / steps
            total[1] += 1 / steps
    return [[name, *total] for name, total in totals.items()]


def tf32() -> bool:
    """Returns whether float32 products use TensorFloat-32, judged by the error of a product."""
    x = torch.rand(256, 256, device=DEVICE)
    exact = x.double() @ x.double()
    return bool((x @ x - exact).norm() / exact.norm() > 1e-5)


if __name__ == "__main__":
    spec = json.loads(sys.argv[1])
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    if DEVICE.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TensorFloat-32, XLA's default
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    report, turn = side(spec)
    print(json.dumps(report), flush=True)
    answers: dict[str, Callable[[], Any]] = {
        "turn": turn,
        "kernels": functools.partial(kernels, turn, spec["steps"] or 1),
    }
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)
