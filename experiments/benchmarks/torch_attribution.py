"""Captum's side of `attribution_parity`: attributions of a small convolutional network.

    python torch_attribution.py IN.npz OUT.npz

IN has images `x` [B, 1, S, S], classes `chosen` [B] and the weights; OUT gets a map for each
method. This module imports nothing from jaxdl, so any Python with PyTorch and Captum runs it.
"""

import sys

import numpy as np
import torch
from captum import attr
from torch import nn


class Net(nn.Module):
    """Two convolutions with average pooling, and two dense layers."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        kernels = [torch.from_numpy(weights[f"Conv_{n}"]).permute(3, 2, 0, 1) for n in (0, 1)]
        self.convs = nn.ModuleList(
            nn.Conv2d(k.shape[1], k.shape[0], 3, padding=1, bias=True) for k in kernels
        )
        dense = [torch.from_numpy(weights[f"Dense_{n}"]).T for n in (0, 1)]
        self.dense = nn.ModuleList(nn.Linear(k.shape[1], k.shape[0]) for k in dense)
        for layer, kernel, name in zip(
            (*self.convs, *self.dense),
            (*kernels, *dense),
            ("Conv_0", "Conv_1", "Dense_0", "Dense_1"),
            strict=True,
        ):
            layer.weight.data = kernel.contiguous()
            layer.bias.data = torch.from_numpy(weights[f"{name}_bias"])
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(3))
        self.pools = nn.ModuleList(nn.AvgPool2d(2) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B, K] of images [B, C, S, S]."""
        for conv, relu, pool in zip(self.convs, self.relus, self.pools, strict=False):
            x = pool(relu(conv(x)))
        x = x.permute(0, 2, 3, 1).flatten(1)  # channels last, as in jaxdl
        return self.dense[1](self.relus[2](self.dense[0](x)))


def attributions(net: nn.Module, x: torch.Tensor, chosen: torch.Tensor) -> dict[str, np.ndarray]:
    """Attributions of all methods by name."""
    x = x.requires_grad_()
    found = {
        "gradient": attr.Saliency(net).attribute(x, target=chosen, abs=False),
        "gradient_x_input": attr.InputXGradient(net).attribute(x, target=chosen),
        "integrated": attr.IntegratedGradients(net).attribute(
            x, target=chosen, n_steps=32, method="riemann_middle"
        ),
        "guided": attr.GuidedBackprop(net).attribute(x, target=chosen),
        "grad_cam": attr.LayerGradCam(net, net.convs[1]).attribute(
            x, target=chosen, relu_attributions=True
        ),
        "occlusion": attr.Occlusion(net).attribute(x, (1, 3, 3), strides=(1, 2, 2), target=chosen),
        "ablation": attr.FeatureAblation(net).attribute(x, target=chosen),
    }
    return {name: value.detach().numpy() for name, value in found.items()}


if __name__ == "__main__":
    given = dict(np.load(sys.argv[1], allow_pickle=False))
    images, classes = torch.from_numpy(given["x"]), torch.from_numpy(given["chosen"]).long()
    np.savez(sys.argv[2], allow_pickle=False, **attributions(Net(given), images, classes))
