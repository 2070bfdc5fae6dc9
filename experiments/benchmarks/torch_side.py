"""PyTorch's side of a benchmark: the same models, trained the way that suits PyTorch best.

    python experiments/benchmarks/torch_side.py SPEC

Channels last, fused optimizers, as many threads as cores, and on a GPU `torch.compile`. Steps are
of one batch that stays in memory, normalised beforehand. An epoch goes through a DataLoader that
indexes whole batches (no workers, no collation: a third of the time that its default takes) and
normalises each. There is no augmentation, no schedule and no metric.

It imports nothing of jaxdl, so that any Python with PyTorch and NumPy will do. SPEC is that of
`beside_torch`, whose child this is; `pair` says how the two talk.
"""

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

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WARM_UP = 2  # turns that are not timed
CHARACTERS, WINDOW = 64, 128  # as of `cases`, which imports what this Python may not have
TOKENS, SENTENCE = 8000, 32
FEATURES = 256


def vgg16() -> nn.Module:
    """[B, 3, 32, 32] -> logits [B, 10], with batch normalisation and one linear layer."""
    layers: list[nn.Module] = []
    inputs = 3
    for width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(convolutions):
            layers += [*_normed(inputs, width, 3, 1, bias=True), nn.ReLU(inplace=True)]
            inputs = width
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(512, 10))


def lenet5() -> nn.Module:
    """[B, 1, 28, 28] -> logits [B, 10], with rectifiers and max pooling."""
    relu, pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)
    first, second = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
    maps = [first, relu, pool, second, relu, pool, nn.Flatten()]
    dense = [nn.Linear(400, 120), relu, nn.Linear(120, 84), relu, nn.Linear(84, 10)]
    return nn.Sequential(*maps, *dense)


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, projected where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.branch = nn.Sequential(
            *_normed(inputs, width, 3, stride), nn.ReLU(inplace=True), *_normed(width, width, 3, 1)
        )
        same = inputs == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_normed(inputs, width, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, width, H / stride, W / stride]."""
        return nn.functional.relu(self.shortcut(x) + self.branch(x), inplace=True)


def resnet18() -> nn.Module:
    """[B, 3, 32, 32] -> logits [B, 10], with the stem for small images."""
    layers = [*_normed(3, 64, 3, 1), nn.ReLU(inplace=True)]
    inputs = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(inputs, width, stride), Block(width, width, 1)]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


class Language(nn.Module):
    """Characters [B, T] -> logits of the one after each, [B, T, V], by PyTorch's own layers."""

    def __init__(self, layer: type[nn.RNNBase]):
        super().__init__()
        self.embed = nn.Embedding(CHARACTERS, FEATURES)
        self.layers = layer(FEATURES, FEATURES, num_layers=2, batch_first=True)
        self.out = nn.Linear(FEATURES, CHARACTERS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Predicts [B, T, V]."""
        return self.out(self.layers(self.embed(tokens))[0])


class Translator(nn.Module):
    """(source [B, S], target [B, T]) -> logits [B, T, V], around PyTorch's own `nn.Transformer`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, FEATURES)
        nn.init.normal_(self.embed.weight, std=FEATURES**-0.5)
        self.drop = nn.Dropout(0.1)
        self.body = nn.Transformer(
            FEATURES,
            nhead=4,
            num_encoder_layers=3,
            num_decoder_layers=3,
            dim_feedforward=4 * FEATURES,
            dropout=0.1,
            activation="gelu",
            norm_first=True,
            batch_first=True,
        )
        place = torch.arange(SENTENCE)[:, None]
        angles = place * 10_000 ** -(torch.arange(0, FEATURES, 2) / FEATURES)[None]
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
        self.register_buffer("waves", waves, persistent=False)
        causal = nn.Transformer.generate_square_subsequent_mask(SENTENCE)
        self.register_buffer("causal", causal, persistent=False)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Predicts [B, T, V]."""
        T = target.shape[1]
        x, y = (self.drop(self.embed(t) * 16 + self.waves[: t.shape[1]]) for t in (source, target))
        hidden = source == 0
        y = self.body(
            x,
            y,
            tgt_mask=self.causal[:T, :T],
            src_key_padding_mask=hidden,
            memory_key_padding_mask=hidden,
            tgt_is_causal=True,
        )
        return nn.functional.linear(y, self.embed.weight)


def _normed(inputs: int, width: int, size: int, stride: int, bias: bool = False) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, width, size, stride, padding=size // 2, bias=bias)
    return [conv, nn.BatchNorm2d(width)]


MODELS: dict[str, Callable[[], Any]] = {
    "vgg16": vgg16,
    "lenet5": lenet5,
    "resnet18": resnet18,
    "lstm": lambda: Language(nn.LSTM),
    "gru": lambda: Language(nn.GRU),
    "rnn": lambda: Language(nn.RNN),
    "transformer": Translator,
}


def optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """The experiment's: Nesterov's momentum for VGG and ResNet, Adam for the others.

    Kernels alone decay, within the gradient or apart from it as suits PyTorch.
    """
    parameters = list(model.parameters())
    if name in ("lenet5", "transformer"):
        return torch.optim.Adam(parameters, lr=0.002 if name == "lenet5" else 1e-3, fused=True)
    kernels = [p for p in parameters if p.ndim > 1]
    rest: dict[str, Any] = {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0}
    if name in ("vgg16", "resnet18"):
        decayed = {"params": kernels, "weight_decay": 5e-4}  # the experiment's 5e-3, but within
        return torch.optim.SGD([decayed, rest], lr=0.1, momentum=0.9, nesterov=True, fused=True)
    decayed = {"params": kernels, "weight_decay": 0.1}
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
        import torch_agent  # beside this file; needs gymnasium

        parameters, update = torch_agent.side(batch_size, steps)
        return described(parameters, "cpu"), warmed(update)
    model = MODELS[name]().to(DEVICE, memory_format=torch.channels_last)
    rule = optimizer(name, model)
    run = torch.compile(model) if DEVICE.type == "cuda" else model
    smoothing = 0.1 if name in ("vgg16", "resnet18", "transformer") else 0.0
    clipped = name not in ("vgg16", "resnet18", "lenet5")
    with np.load(spec["data"], allow_pickle=False) as arrays:
        prepared, split = inputs(arrays)

    def step(x: tuple[torch.Tensor, ...], y: torch.Tensor) -> None:
        rule.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, spec["dtype"] == "bfloat16"):
            logits = run(*x).flatten(0, -2)
            loss = nn.functional.cross_entropy(logits, y.flatten(), label_smoothing=smoothing)
        loss.backward()
        if clipped:
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
    return described(parameters, "gpu" if DEVICE.type == "cuda" else "cpu"), warmed(turn)


def warmed(turn: Callable[[], float]) -> Callable[[], float]:
    """A turn that was taken before."""
    for _ in range(WARM_UP):
        turn()
    return turn


def described(parameters: int, backend: str) -> dict[str, Any]:
    """A side's report."""
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    return {"parameters": parameters, "backend": backend, "versions": versions}


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    if DEVICE.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TensorFloat-32, as XLA has it
        torch.backends.cudnn.benchmark = True
    report, turn = side(json.loads(sys.argv[1]))
    print(json.dumps(report), flush=True)
    for _ in sys.stdin:
        print(json.dumps(turn()), flush=True)
