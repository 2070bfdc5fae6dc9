"""PyTorch's side of `analysis_parity`: foolbox, netcal and hessian-eigenthings.

    python torch_analysis.py IN.npz OUT.npz

IN has pixels `x` [B, 1, S, S] in levels of 0 to 255, classes `labels` [B], the numbers `epsilon`,
`length`, `steps`, `iterations` and `of_hessian`, and weights; OUT gets what the libraries find.
This module imports nothing from jaxdl, so any Python with PyTorch and these libraries runs it.
"""

import sys

import foolbox
import numpy as np
import torch
from hessian_eigenthings import HessianOperator, lanczos
from netcal.metrics import ECE
from torch import nn
from torch.nn import functional

BINS, LARGEST = 15, 5


class Net(nn.Module):
    """Two convolutions with average pooling, and two dense layers, of pixels in levels."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        convs = [weights[f"conv{n}.weight"].shape for n in (1, 2)]
        dense = [weights[f"fc{n}.weight"].shape for n in (1, 2)]
        self.conv1, self.conv2 = (nn.Conv2d(s[1], s[0], 3, padding=1) for s in convs)
        self.fc1, self.fc2 = (nn.Linear(s[1], s[0]) for s in dense)
        self.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B, K] of pixels [B, 1, S, S]."""
        x = x / 255
        for conv in (self.conv1, self.conv2):
            x = functional.avg_pool2d(functional.relu(conv(x)), 2)
        return self.fc2(functional.relu(self.fc1(x.flatten(1))))


def attacked(net: nn.Module, x: torch.Tensor, labels: torch.Tensor, given: dict) -> dict:
    """Images after foolbox's attacks without a random start, by name."""
    model = foolbox.PyTorchModel(net, bounds=(0, 255))
    descent = {"abs_stepsize": float(given["length"]), "steps": int(given["steps"])}
    attacks = {
        "fgsm": foolbox.attacks.LinfFastGradientAttack(random_start=False),
        "pgd": foolbox.attacks.LinfPGD(random_start=False, **descent),
        "pgd_2": foolbox.attacks.L2PGD(random_start=False, **descent),
    }
    criterion = foolbox.criteria.Misclassification(labels)
    epsilon = float(given["epsilon"])
    # `run` gives the images of all examples, also of those that are wrong without an attack.
    return {
        name: attack.run(model, x, criterion, epsilon=epsilon).numpy()
        for name, attack in attacks.items()
    }


def eigenvalues(net: nn.Module, x: torch.Tensor, labels: torch.Tensor, steps: int) -> dict:
    """Largest eigenvalues of the Hessian of the mean loss, by the library and of the dense one."""

    def loss(net: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return functional.cross_entropy(net(batch[0]), batch[1])

    operator = HessianOperator(net, [(x, labels)], loss)
    found = lanczos(operator, k=LARGEST, max_iter=steps, reorthogonalize=True, which="LA", seed=0)
    names, leaves = zip(*net.named_parameters(), strict=True)
    sizes = [leaf.numel() for leaf in leaves]

    def of_vector(vector: torch.Tensor) -> torch.Tensor:
        parts = zip(names, leaves, vector.split(sizes), strict=True)
        params = {name: part.view(leaf.shape) for name, leaf, part in parts}
        return functional.cross_entropy(torch.func.functional_call(net, params, (x,)), labels)

    vector = torch.cat([leaf.detach().reshape(-1) for leaf in leaves])
    dense = torch.func.hessian(of_vector)(vector)
    largest = torch.linalg.eigvalsh(dense.double()).flip(0)[:LARGEST]
    return {"hessian": np.asarray(found.eigenvalues), "dense_hessian": largest.numpy()}


if __name__ == "__main__":
    given = dict(np.load(sys.argv[1], allow_pickle=False))
    net = Net({name: value for name, value in given.items() if "." in name}).eval()
    x, labels = torch.from_numpy(given["x"]), torch.from_numpy(given["labels"]).long()
    with torch.no_grad():
        p = torch.softmax(net(x).double(), dim=1).numpy()
    found = {"logits": net(x).detach().numpy(), "ece": ECE(BINS).measure(p, given["labels"])}
    found |= attacked(net, x, labels, given)
    count = int(given["of_hessian"])
    found |= eigenvalues(net, x[:count], labels[:count], int(given["iterations"]))
    np.savez(sys.argv[2], allow_pickle=False, **found)
