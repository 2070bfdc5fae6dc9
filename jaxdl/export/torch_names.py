"""Names of PyTorch's layers: torchvision's, and those of other models by their order.

Names of torchvision's layers are in the order in which they are applied.
"""

import re
from collections.abc import Collection, Mapping

import numpy as np

CELLS = {1: "rnn", 3: "gru", 4: "lstm"}  # by the number of gates
WRAPPERS = ("module.", "_orig_mod.")  # prefixes of DataParallel and of `torch.compile`
VGG_STAGES = {  # convolutions of each stage, by their number
    8: (1, 1, 2, 2, 2),
    10: (2, 2, 2, 2, 2),
    13: (2, 2, 3, 3, 3),
    16: (2, 2, 4, 4, 4),
}
RESNET_BLOCKS = {  # (convolutions of a block, blocks of each stage), by all convolutions
    20: (2, (2, 2, 2, 2)),
    36: (2, (3, 4, 6, 3)),
    53: (3, (3, 4, 6, 3)),
}


def vgg_layers(
    convolutions: int, norms: int, denses: int
) -> tuple[list[str], list[str], list[str]] | None:
    """Names of a VGG's convolutions, norms and dense layers; None for other numbers of layers.

    A head of one layer is `classifier` itself, as in the variants for small images.

    >>> vgg_layers(8, 8, 1)[0][:3]
    ['features.0', 'features.4', 'features.8']
    """
    if convolutions not in VGG_STAGES or norms not in (0, convolutions) or not denses:
        return None
    places, place = [], 0
    for count in VGG_STAGES[convolutions]:
        for _ in range(count):
            places.append(place)
            place += 3 if norms else 2  # also the norm and the rectifier
        place += 1  # the pooling
    heads = [f"classifier.{3 * n}" for n in range(denses)] if denses > 1 else ["classifier"]
    features = [f"features.{n}" for n in places]
    return features, [f"features.{n + 1}" for n in places], heads


def resnet_layers(convolutions: int) -> list[tuple[str, str]]:
    """Names of a ResNet's convolutions and of the norms after them.

    >>> resnet_layers(20)[:2]
    [('conv1', 'bn1'), ('layer1.0.conv1', 'layer1.0.bn1')]
    """
    size, stages = RESNET_BLOCKS[convolutions]
    layers = [("conv1", "bn1")]
    for stage, blocks in enumerate(stages, 1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            layers += [(f"{name}.conv{n}", f"{name}.bn{n}") for n in range(1, size + 1)]
            if block == 0 and (stage > 1 or size == 3):  # where the shape changes
                layers.append((f"{name}.downsample.0", f"{name}.downsample.1"))
    return layers


def match_names(tensors: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, str]:
    """Finds the names that a model's tensors have in PyTorch's models of this package.

    Prefixes of wrappers are removed. Modules are renamed where their place is certain without a
    name: those of an `nn.Sequential` are numbered, and a recurrent model has one embedding, one
    recurrent and one linear layer.

    Args:
      tensors: PyTorch's tensors by name.
      names: names to give.

    Returns:
      New names by old ones. A name without a counterpart stays.

    >>> bias = np.zeros(2)
    >>> match_names({"module.0.bias": bias, "module.2.bias": bias}, ["fc1.bias", "fc2.bias"])
    {'module.0.bias': 'fc1.bias', 'module.2.bias': 'fc2.bias'}
    """
    inner = _unwrap(tensors)
    ranks = {inner[name]: np.ndim(array) for name, array in tensors.items()}
    recurrent = any("weight_hh" in name for name in names)
    is_sequential = all(re.fullmatch(r"\d+(\.\d+)*", module_of(name)) for name in ranks)
    is_nested = any(name.startswith(("layer1.", "encoder.")) for name in names)
    if is_nested or not (recurrent or is_sequential):
        return inner
    old, new = _by_kind(ranks), _by_kind(dict.fromkeys(names, 0))
    if recurrent and any(len(modules) > 1 for modules in old.values()):
        return inner
    targets = {
        module: target
        for kind, modules in old.items()
        for module, target in zip(modules, new.get(kind, []), strict=False)
    }
    renamed = {}
    for outer, name in inner.items():
        target, part = targets.get(module_of(name), module_of(name)), name.rpartition(".")[2]
        renamed[outer] = f"{target}.{part}" if target else part
    return renamed


def module_of(name: str) -> str:
    """Name of the module that a tensor belongs to; "" for the model itself."""
    return name.rpartition(".")[0]


def _unwrap(names: Collection[str]) -> dict[str, str]:
    """Names without the prefixes of wrappers that all names have, by old names."""
    inner = list(names)
    for prefix in WRAPPERS * 2:  # one may be inside the other
        if inner and all(name.startswith(prefix) for name in inner):
            inner = [name.removeprefix(prefix) for name in inner]
    return dict(zip(names, inner, strict=True))


def _by_kind(ranks: Mapping[str, int]) -> dict[str, list[str]]:
    """Modules of each kind in the order of their numbers.

    Args:
      ranks: number of axes of each tensor; of names to give 0, as their names tell the kind.
    """
    parts: dict[str, set[str]] = {}
    for name in ranks:
        parts.setdefault(module_of(name), set()).add(name.rpartition(".")[2])
    kinds: dict[str, list[str]] = {}
    for module in sorted(parts, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]):
        if any(part.startswith("weight_hh") for part in parts[module]):
            kind = "recurrent"
        elif "running_mean" in parts[module]:
            kind = "norm"
        elif "bias" not in parts[module]:
            kind = "embedding"
        else:
            is_conv = ranks.get(f"{module}.weight") == 4 or module.startswith(("conv", "features"))
            kind = "convolution" if is_conv else "dense"
        kinds.setdefault(kind, []).append(module)
    return kinds
