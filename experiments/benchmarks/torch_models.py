"""Models of PyTorch's side of a benchmark, written as a user of PyTorch writes them.

This module imports nothing from jaxdl; `torch_side` uses it. Shapes: B examples, images of H by W
pixels with C channels, S source tokens, T tokens, V entries in the vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# Copies of constants in `cases`, which imports packages that this Python may not have.
CHARACTERS, WINDOW = 64, 128
TOKENS, SENTENCE = 8000, 32
FEATURES = 256


def vgg16(divisor: int = 1) -> nn.Module:
    """VGG-16 with batch normalisation and one linear layer: [B, 3, 32, 32] -> logits [B, 10].

    The width of each layer is divided by `divisor`.
    """
    layers: list[nn.Module] = []
    inputs = 3
    for full_width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        width = full_width // divisor
        for _ in range(convolutions):
            layers += [*_conv_norm(inputs, width, 3, 1, bias=True), nn.ReLU(inplace=True)]
            inputs = width
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(inputs, 10))


def lenet5() -> nn.Module:
    """LeNet-5 with ReLU and max pooling: [B, 1, 28, 28] -> logits [B, 10]."""
    relu, pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)
    conv1, conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
    convolutions = [conv1, relu, pool, conv2, relu, pool, nn.Flatten()]
    dense = [nn.Linear(400, 120), relu, nn.Linear(120, 84), relu, nn.Linear(84, 10)]
    return nn.Sequential(*convolutions, *dense)


class Block(nn.Module):
    """Residual block of two 3x3 convolutions; the shortcut is projected if the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.branch = nn.Sequential(
            *_conv_norm(inputs, width, 3, stride),
            nn.ReLU(inplace=True),
            *_conv_norm(width, width, 3, 1),
        )
        same = inputs == width and stride == 1
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(*_conv_norm(inputs, width, 1, stride))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, width, H / stride, W / stride]."""
        return nn.functional.relu(self.shortcut(x) + self.branch(x), inplace=True)


def resnet18() -> nn.Module:
    """ResNet-18 with the stem for small images: [B, 3, 32, 32] -> logits [B, 10]."""
    layers = [*_conv_norm(3, 64, 3, 1), nn.ReLU(inplace=True)]
    inputs = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(inputs, width, stride), Block(width, width, 1)]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


class Bottleneck(nn.Module):
    """Bottleneck block: 1x1, 3x3 with the stride, 1x1 to four times the width, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.branch = nn.Sequential(
            *_conv_norm(inputs, width, 1, 1),
            nn.ReLU(inplace=True),
            *_conv_norm(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *_conv_norm(width, 4 * width, 1, 1),
        )
        same = inputs == 4 * width and stride == 1
        projection = [] if same else _conv_norm(inputs, 4 * width, 1, stride)
        self.shortcut = nn.Sequential(*projection)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 4 * width, H / stride, W / stride]."""
        return nn.functional.relu(self.shortcut(x) + self.branch(x), inplace=True)


def resnet50() -> nn.Module:
    """ResNet-50 with the stem for ImageNet: [B, 3, 224, 224] -> logits [B, 10]."""
    layers = [*_conv_norm(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            layers += [Bottleneck(inputs, width, stride if block == 0 else 1)]
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 10))


class ViT(nn.Module):
    """Vision Transformer on 64 patches of 4x4 pixels: [B, 3, 32, 32] -> logits [B, 10]."""

    def __init__(self, features: int = 192, heads: int = 3, layers: int = 6):
        super().__init__()
        self.embed = nn.Conv2d(3, features, 4, stride=4)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 64, features))
        block = nn.TransformerEncoderLayer(
            features,
            heads,
            4 * features,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        norm = nn.LayerNorm(features)
        self.encoder = nn.TransformerEncoder(block, layers, norm, enable_nested_tensor=False)
        self.head = nn.Linear(features, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits, computed from the mean over patches."""
        patches = self.embed(x).flatten(2).transpose(1, 2)
        return self.head(self.encoder(patches + self.positions).mean(dim=1))


class Language(nn.Module):
    """Recurrent language model: characters [B, T] -> logits of the next character [B, T, V].

    The recurrent layers take time as the first axis, the layout that cuDNN computes in.
    """

    def __init__(self, layer: type[nn.RNNBase]):
        super().__init__()
        self.embed = nn.Embedding(CHARACTERS, FEATURES)
        self.layers = layer(FEATURES, FEATURES, num_layers=2)
        self.out = nn.Linear(FEATURES, CHARACTERS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, T, V]."""
        return self.out(self.layers(self.embed(tokens.T))[0]).transpose(0, 1)


class Translator(nn.Module):
    """Transformer translator: (source [B, S], target [B, T]) -> logits [B, T, V]."""

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
        position = torch.arange(SENTENCE)[:, None]
        angles = position * 10_000 ** -(torch.arange(0, FEATURES, 2) / FEATURES)[None]
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
        self.register_buffer("waves", waves, persistent=False)
        causal = nn.Transformer.generate_square_subsequent_mask(SENTENCE)
        self.register_buffer("causal", causal, persistent=False)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, T, V]."""
        T = target.shape[1]
        x, y = (self.drop(self.embed(t) * 16 + self.waves[: t.shape[1]]) for t in (source, target))
        padding = source == 0
        y = self.body(
            x,
            y,
            tgt_mask=self.causal[:T, :T],
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return nn.functional.linear(y, self.embed.weight)


def _conv_norm(
    inputs: int, width: int, size: int, stride: int, bias: bool = False
) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, width, size, stride, padding=size // 2, bias=bias)
    return [conv, nn.BatchNorm2d(width)]


MODELS: dict[str, Callable[[], Any]] = {
    "vgg16": vgg16,
    "lenet5": lenet5,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "vit": ViT,
    "lstm": lambda: Language(nn.LSTM),
    "gru": lambda: Language(nn.GRU),
    "rnn": lambda: Language(nn.RNN),
    "transformer": Translator,
}
