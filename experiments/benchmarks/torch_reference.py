"""PyTorch's side of `torch_parity`: outputs of torchvision's models and recurrent layers.

    python -m experiments.benchmarks.torch_reference SPEC

SPEC is JSON: the model's name, and a folder with `input.npz` and perhaps `ours.safetensors`. The
process writes `theirs.safetensors`, random weights, and `outputs.npz` with the outputs for these
and for the weights of `ours.safetensors`. It prints the names and shapes of the tensors.

This module imports nothing from jaxdl, so that any Python with PyTorch, torchvision and safetensors
can run it.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models.vgg import VGG, cfgs, make_layers

from experiments.benchmarks.random_weights import fill


class Sequences(nn.Module):
    """Embedding, recurrent layers, maximum over positions and a linear layer."""

    def __init__(self, layer: type[nn.RNNBase]):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.name = layer.__name__.lower()
        layers = layer(6, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.add_module(self.name, layers)
        self.linear = nn.Linear(10, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, 3] of tokens [B, T]."""
        layers = self.get_submodule(self.name)
        return self.linear(layers(self.embedding(tokens))[0].amax(dim=1))


def small_vgg() -> nn.Module:
    """VGG-11 with batch normalisation, a sixteenth of the widths and 3 classes."""
    widths = [size if isinstance(size, str) else size // 16 for size in cfgs["A"]]
    model = VGG(make_layers(widths, batch_norm=True), num_classes=3)
    units = [32 * 49, 256, 256, 3]
    for n, place in enumerate((0, 3, 6)):
        model.classifier[place] = nn.Linear(units[n], units[n + 1])
    return model


def small_vit() -> nn.Module:
    """ViT of two blocks on 2x2 patches, with 3 classes."""
    return torchvision.models.VisionTransformer(
        image_size=32,
        patch_size=16,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=12,
        num_classes=3,
    )


SMALL: dict[str, Callable[[], nn.Module]] = {
    "small_vgg": small_vgg,
    "small_resnet18": partial(torchvision.models.resnet18, num_classes=3),
    "small_resnet50": partial(torchvision.models.resnet50, num_classes=3),
    "small_vit": small_vit,
    "rnn": partial(Sequences, nn.RNN),
    "lstm": partial(Sequences, nn.LSTM),
    "gru": partial(Sequences, nn.GRU),
}


def outputs(model: nn.Module, tensors: dict[str, torch.Tensor], x: torch.Tensor) -> np.ndarray:
    """Loads weights, all of them, and returns the model's outputs in evaluation mode."""
    model.load_state_dict(tensors, strict=True)
    with torch.no_grad():
        return model.eval()(x).numpy()


if __name__ == "__main__":
    spec = json.loads(sys.argv[1])
    folder = Path(spec["folder"])
    name = spec["model"]
    net = SMALL[name]() if name in SMALL else torchvision.models.get_model(name, weights=None)
    sizes = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    weights = {key: torch.from_numpy(array) for key, array in fill(sizes).items()}
    with np.load(folder / "input.npz", allow_pickle=False) as file:
        batch = torch.from_numpy(file["x"])
    arrays = {"theirs": outputs(net, weights, batch)}
    save_file(weights, folder / "theirs.safetensors")
    ours = folder / "ours.safetensors"
    if ours.exists():
        arrays["ours"] = outputs(net, load_file(ours), batch)
    np.savez(folder / "outputs.npz", allow_pickle=False, **arrays)
    print(json.dumps(sizes))
