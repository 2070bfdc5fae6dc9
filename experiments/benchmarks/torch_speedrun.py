"""PyTorch's side of the CIFAR-10 speedrun: the recipe of `experiments.cifar_speedrun`.

    python -m experiments.benchmarks.torch_speedrun SPEC

After airbench94_muon (Jordan, 2024, arXiv 2404.00498), in the form that suits PyTorch: all images
stay on the device, the images of an epoch are augmented in one go, and the network is compiled. A
turn is one training, each time with the next seed. This module imports nothing from jaxdl.
`accelerator.speedrun` starts this process and writes SPEC.

Shapes: B images of H by W with C channels, [B, C, H, W]; P = 4 * C entries of a patch.
"""

import json
import platform
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WIDTHS = (64, 256, 256)
NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315


def whiten(x: torch.Tensor, epsilon: float = 5e-4) -> torch.Tensor:
    """Returns a kernel [2 * P, C, 2, 2] that whitens the 2x2 patches of x, and its negative."""
    C = x.shape[1]
    patches = x.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 4 * C)
    patches = patches.double()
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    kernel = (vectors / torch.sqrt(values + epsilon)).T.reshape(-1, C, 2, 2)
    return torch.cat([kernel, -kernel]).float()


class Block(nn.Module):
    """Block of convolution, 2x2 max pooling, norm, GELU; then convolution, norm, GELU."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, momentum=0.4) for _ in range(2))
        for norm in self.norms:
            norm.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inputs, H, W] -> [B, width, H // 2, W // 2]."""
        x = functional.max_pool2d(self.first(x), 2)
        x = functional.gelu(self.norms[0](x), approximate="tanh")
        return functional.gelu(self.norms[1](self.second(x)), approximate="tanh")


class Airbench(nn.Module):
    """Network [B, C, H, W] -> logits [B, classes]; `whitening` is the fixed first kernel."""

    def __init__(self, whitening: torch.Tensor, classes: int, width_multiplier: float):
        super().__init__()
        self.register_buffer("whitening", whitening)
        self.whitening_bias = nn.Parameter(torch.zeros(len(whitening)))
        widths = [max(1, round(width * width_multiplier)) for width in WIDTHS]
        inputs = [len(whitening), *widths]
        self.blocks = nn.ModuleList(map(Block, inputs, widths))
        self.head = nn.Linear(widths[-1], classes, bias=False)

    def reset(self) -> None:
        """Draws new parameters; the first filters of each 3x3 kernel are the identity."""
        self.whitening_bias.data.zero_()
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                module.reset_parameters()
            if isinstance(module, nn.Conv2d):
                nn.init.dirac_(module.weight.data[: module.in_channels])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        # Whitening takes small differences of pixels, which need full precision.
        with torch.autocast(x.device.type, enabled=False):
            x = functional.conv2d(x, self.whitening, self.whitening_bias)
        x = functional.gelu(x, approximate="tanh")
        for block in self.blocks:
            x = block(x)
        return self.head(x.amax((2, 3))) / 9


def orthogonal(g: torch.Tensor, steps: int = 3) -> torch.Tensor:
    """Returns g [m, n] with its singular values near 1, by Newton-Schulz; in bfloat16 on a GPU."""
    a, b, c = NEWTON_SCHULZ
    x = g.bfloat16() if g.is_cuda else g
    x = x / (x.norm() + 1e-8)
    x = x.T if len(g) > g.shape[1] else x
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if len(g) > g.shape[1] else x).to(g.dtype)


class Muon:
    """Muon optimizer: orthogonalised Nesterov momentum for kernels, which it also normalises.

    Args:
      kernels: the parameters to optimise.
      momentum: the decay of the momentum.
      orthogonalise: the function that orthogonalises a matrix.
    """

    def __init__(
        self, kernels: list[nn.Parameter], momentum: float, orthogonalise: Any = orthogonal
    ):
        self._kernels, self._momentum, self._orthogonalise = kernels, momentum, orthogonalise
        self._momenta = [torch.zeros_like(kernel) for kernel in kernels]
        self._count = 0

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Updates the kernels from their gradients, with optax's bias correction of momentum."""
        self._count += 1
        m = self._momentum
        past, now = m / (1 - m ** (self._count + 1)), 1 / (1 - m**self._count)
        for kernel, momentum in zip(self._kernels, self._momenta, strict=True):
            assert kernel.grad is not None
            momentum.mul_(m).add_(kernel.grad)
            update = self._orthogonalise((past * momentum + now * kernel.grad).flatten(1))
            kernel.mul_(len(kernel) ** 0.5 / kernel.norm())
            kernel.sub_(update.view_as(kernel), alpha=rate)


def optimizers(
    model: Airbench, spec: dict[str, Any], orthogonalise: Any = orthogonal
) -> tuple[Any, ...]:
    """Returns Muon for the 3x3 kernels, and SGD with Nesterov momentum for the other parameters.

    Each parameter group of the latter has its highest learning rate under "peak".
    """
    kernels = [p for p in model.parameters() if p.ndim == 4]
    biases = [module.bias for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    parts = {"bias": biases, "head": [model.head.weight], "whitening": [model.whitening_bias]}
    groups = []
    for name, parameters in parts.items():
        peak = spec["head_rate" if name == "head" else "bias_rate"]
        decay = spec["weight_decay"] / peak
        groups.append({"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay})
    momentum = spec["rest_momentum"]
    sgd = torch.optim.SGD(groups, momentum=momentum, nesterov=True, fused=True)
    return Muon(kernels, spec["momentum"], orthogonalise), sgd


def set_rates(sgd: torch.optim.Optimizer, step: int, durations: tuple[int, ...]) -> None:
    """Sets the learning rates of a step, which fall linearly from the peak to 0.

    Args:
      sgd: the optimizer, with a "peak" in each parameter group.
      step: the number of the step.
      durations: for each group, the number of steps after which its rate is 0.
    """
    for group, steps in zip(sgd.param_groups, durations, strict=True):
        group["lr"] = group["peak"] * max(0.0, 1 - step / max(steps, 1))


def augmented(x: torch.Tensor, flip: torch.Tensor, max_shift: int) -> torch.Tensor:
    """Returns x, mirrored where `flip` [B] is true and shifted randomly over a reflected border.

    Args:
      x: the images [B, C, H, W].
      flip: the images to mirror, bool [B].
      max_shift: the largest shift in each direction, in pixels.
    """
    H, W = x.shape[2:]
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    x = functional.pad(x, (max_shift,) * 4, mode="reflect")
    down, right = torch.randint(0, 2 * max_shift + 1, (2, len(x)), device=x.device)
    rows = torch.empty_like(x[:, :, :H])
    result = torch.empty_like(rows[..., :W])
    for n in range(2 * max_shift + 1):
        rows[down == n] = x[down == n, :, n : n + H]
    for n in range(2 * max_shift + 1):
        result[right == n] = rows[right == n, :, :, n : n + W]
    return result.contiguous(memory_format=torch.channels_last)


def views(x: torch.Tensor, mirrored: bool) -> list[tuple[float, torch.Tensor]]:
    """Returns weighted views of x for evaluation: x and its copies shifted by a pixel diagonally.

    Args:
      x: the images [B, C, H, W].
      mirrored: add the mirror image of each view.

    Returns:
      Pairs of a weight and images [B, C, H, W]; the weights add up to 1.
    """
    H, W = x.shape[2:]
    wide = functional.pad(x, (1,) * 4, mode="reflect")
    shifted = [(0.5, x), *((0.25, wide[:, :, n : n + H, n : n + W]) for n in (2, 0))]
    if not mirrored:
        return shifted
    return [(weight / 2, side) for weight, x in shifted for side in (x, x.flip(3))]


class Race:
    """Repeated training of one network, each time with the next seed."""

    def __init__(self, spec: dict[str, Any]):
        self._spec, self._seed = spec, 0
        with np.load(spec["data"], allow_pickle=False) as arrays:
            data = {name: torch.from_numpy(arrays[name]).to(DEVICE) for name in arrays}
        mean, std = (torch.tensor(spec[n], device=DEVICE)[:, None, None] for n in ("mean", "std"))
        for split in ("train", "test"):
            x = (data[f"{split}_image"].permute(0, 3, 1, 2) - mean) / std
            data[f"{split}_image"] = x.contiguous(memory_format=torch.channels_last)
        self._data = data
        model = Airbench(whiten(data["train_image"][:5000]), spec["classes"], spec["width"])
        self.model = model.to(DEVICE, memory_format=torch.channels_last)
        compiled = DEVICE.type == "cuda"
        self._run = torch.compile(self.model) if compiled else self.model
        self._orthogonalise = torch.compile(orthogonal) if compiled else orthogonal

    def autocast(self) -> torch.autocast:
        """Returns a context of bfloat16 computation, active if the recipe asks for it."""
        return torch.autocast(DEVICE.type, torch.bfloat16, self._spec["dtype"] == "bfloat16")

    def train(self, seed: int) -> None:
        """Trains from new parameters to the end."""
        spec, x, labels = self._spec, self._data["train_image"], self._data["train_label"]
        torch.manual_seed(seed)
        self.model.reset()
        self.model.train()
        muon, sgd = optimizers(self.model, spec, self._orthogonalise)
        per_epoch = len(x) // spec["batch_size"]
        total, whitening_steps = spec["epochs"] * per_epoch, spec["whitening_epochs"] * per_epoch
        flip_first = torch.rand(len(x), device=DEVICE) < 0.5
        for epoch in range(spec["epochs"]):
            flip = (flip_first ^ (epoch % 2 == 1)) & spec["mirrored"]
            images = augmented(x, flip, spec["translate"])
            order = torch.randperm(len(x), device=DEVICE)
            for n, rows in enumerate(order.split(spec["batch_size"])[:per_epoch]):
                step = epoch * per_epoch + n
                set_rates(sgd, step, (total, total, whitening_steps))
                batch = images[rows].contiguous(memory_format=torch.channels_last)
                with self.autocast():
                    logits = self._run(batch)
                loss = functional.cross_entropy(
                    logits.float(), labels[rows], label_smoothing=spec["label_smoothing"]
                )
                self.model.zero_grad()
                loss.backward()
                muon.step(spec["learning_rate"] * (1 - step / total))
                sgd.step()

    @torch.no_grad()
    def accuracy(self) -> float:
        """Returns the accuracy on the test split, with outputs averaged over views."""
        self.model.eval()
        correct = 0
        for rows in torch.arange(len(self._data["test_label"])).split(self._spec["batch_size"]):
            x, labels = self._data["test_image"][rows], self._data["test_label"][rows]
            with self.autocast():
                weighted_views = views(x, self._spec["mirrored"])
                logits = sum(weight * self._run(view).float() for weight, view in weighted_views)
            correct += int((logits.argmax(1) == labels).sum())
        return correct / len(self._data["test_label"])

    def turn(self) -> dict[str, float]:
        """Trains and evaluates once; returns the training seconds and the accuracy."""
        _synchronize()
        began = time.perf_counter()
        self.train(self._seed)
        _synchronize()
        trained = time.perf_counter()
        accuracy = self.accuracy()
        self._seed += 1
        return {"seconds": trained - began, "accuracy": accuracy}


def _synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    race = Race(json.loads(sys.argv[1]))
    race.turn()  # compiles
    count = sum(p.numel() for p in race.model.parameters() if p.requires_grad)
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    print(json.dumps({"parameters": count, "versions": versions}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(race.turn()), flush=True)
