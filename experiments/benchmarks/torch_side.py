"""PyTorch's side of a benchmark: the same models, trained the way that suits PyTorch best.

    python -m experiments.benchmarks.torch_side SPEC

Channels last, fused optimizers, as many threads as cores, and on a GPU `torch.compile` of model and
loss (LeNet-5's, whose kernels are short, with CUDA graphs). Steps are of one batch that stays in
memory, normalised beforehand. An epoch goes through a DataLoader that
indexes whole batches (no workers, no collation: a third of the time that its default takes) and
normalises each. There is no augmentation, no schedule and no metric.

It imports nothing of jaxdl, so that any Python with PyTorch and NumPy will do. SPEC is that of
`beside_torch`, whose child this is; `pair` says how the two talk.
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
WARM_UP = 2  # turns that are not timed
SMOOTHED = ("vgg16", "resnet18", "resnet50", "vit", "transformer")  # labels, by a tenth
UNCLIPPED = ("vgg16", "resnet18", "resnet50", "lenet5")
CONVOLUTIONAL = ("vgg16", "resnet18", "resnet50")


def optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """The experiment's: Nesterov's momentum for VGG and ResNet, Adam for the others.

    Kernels alone decay, within the gradient or apart from it as suits PyTorch.
    """
    parameters = list(model.parameters())
    if name in ("lenet5", "transformer"):
        return torch.optim.Adam(parameters, lr=0.002 if name == "lenet5" else 1e-3, fused=True)
    kernels = [p for p in parameters if p.ndim > 1]
    rest: dict[str, Any] = {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0}
    if name in CONVOLUTIONAL:
        decayed = {"params": kernels, "weight_decay": 5e-4}  # the experiment's 5e-3, but within
        return torch.optim.SGD([decayed, rest], lr=0.1, momentum=0.9, nesterov=True, fused=True)
    decayed = {"params": kernels, "weight_decay": 0.05 if name == "vit" else 0.1}
    return torch.optim.AdamW([decayed, rest], lr=1e-3, fused=True)


def inputs(arrays: Any) -> tuple[Callable[..., Any], TensorDataset]:
    """Examples, and what makes the model's inputs and the labels of a batch of them."""
    tensors = {n: torch.from_numpy(array).to(DEVICE) for n, array in arrays.items()}
    if "text" in tensors:  # windows, each a character on from the one before it
        windows = tensors["text"].unfold(0, WINDOW + 1, 1)
        return lambda x: ((x[:, :-1].contiguous(),), x[:, 1:]), TensorDataset(windows)
    if "source" in tensors:
        both = TensorDataset(tensors["source"], tensors["target"])
        return lambda x, y: ((x, y[:, :-1]), y[:, 1:]), both
    images = tensors["image"].permute(0, 3, 1, 2)
    std, mean = torch.std_mean(images.float())

    def normalised(x: torch.Tensor, y: torch.Tensor) -> tuple[tuple[torch.Tensor], torch.Tensor]:
        return (((x.float() - mean) / std).contiguous(memory_format=torch.channels_last),), y

    return normalised, TensorDataset(images, tensors["label"])


def side(spec: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], float]]:
    """Builds and warms up; returns a report, and a turn that takes seconds a step or epoch."""
    name, batch_size, steps = spec["model"], spec["batch_size"], spec["steps"]
    if name == "ppo":
        from experiments.benchmarks import torch_agent  # needs gymnasium

        parameters, update = torch_agent.side(batch_size, steps)
        return described(parameters, "cpu"), warmed(update)
    model = MODELS[name]().to(DEVICE, memory_format=torch.channels_last)
    rule = optimizer(name, model)
    with np.load(spec["data"], allow_pickle=False) as arrays:
        prepared, split = inputs(arrays)

    def objective(x: tuple[torch.Tensor, ...], y: torch.Tensor) -> torch.Tensor:
        logits = model(*x).flatten(0, -2)
        smoothing = 0.1 if name in SMOOTHED else 0.0
        return nn.functional.cross_entropy(logits, y.flatten(), label_smoothing=smoothing)

    if DEVICE.type == "cuda":
        mode = "reduce-overhead" if name == "lenet5" else "default"
        objective = torch.compile(objective, mode=mode)

    def step(x: tuple[torch.Tensor, ...], y: torch.Tensor) -> None:
        rule.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, spec["dtype"] == "bfloat16"):
            loss = objective(x, y)
        loss.backward()
        if name not in UNCLIPPED:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rule.step()

    order = BatchSampler(RandomSampler(split), batch_size, drop_last=True)
    loader = DataLoader(split, sampler=order, batch_size=None)
    fixed = prepared(*split[:batch_size])

    def turn() -> float:
        began = time.perf_counter()
        if steps:
            for _ in range(steps):
                step(*fixed)
        else:
            for batch in loader:
                step(*prepared(*batch))
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / (steps or 1)

    # PyTorch's recurrent layers have two biases of which only the sum counts, but in a GRU's last
    # gate; the second one is no parameter more.
    twice = sum(
        p.numel() * (2 if name == "gru" else 3) // 3
        for n, p in model.named_parameters()
        if "bias_hh" in n
    )
    parameters = sum(p.numel() for p in model.parameters()) - twice
    warm = warmed(turn)
    return described(parameters, "gpu" if DEVICE.type == "cuda" else "cpu"), warm


def warmed(turn: Callable[[], float]) -> Callable[[], float]:
    """A turn that was taken before.

    Memory is counted from the second on: the first tries algorithms.
    """
    for _ in range(WARM_UP):
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        turn()
    return turn


def described(parameters: int, backend: str) -> dict[str, Any]:
    """A side's report."""
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    report = {"parameters": parameters, "backend": backend, "versions": versions, "tf32": tf32()}
    if backend == "gpu":
        report["memory_bytes"] = torch.cuda.max_memory_allocated()
    return report


def kernels(turn: Callable[[], Any], steps: int) -> list[list[Any]]:
    """A GPU's kernels in a turn of so many steps: [name, seconds, launches] a step."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        turn()
    found: dict[str, list[float]] = {}
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            spent = found.setdefault(event.name, [0.0, 0.0])
            spent[0] += 1e-6 * event.device_time_total / steps
            spent[1] += 1 / steps
    return [[name, *spent] for name, spent in found.items()]


def tf32() -> bool:
    """True if float32 products are computed in TensorFloat-32, found by a product's error."""
    x = torch.rand(256, 256, device=DEVICE)
    exact = x.double() @ x.double()
    return bool((x @ x - exact).norm() / exact.norm() > 1e-5)


if __name__ == "__main__":
    spec = json.loads(sys.argv[1])
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    if DEVICE.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TensorFloat-32, as XLA has it by default
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
