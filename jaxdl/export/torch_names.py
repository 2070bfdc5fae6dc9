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


def rename(tensors: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, np.ndarray]:
    """Renames tensors to the names of a model, where the layers are certain without names.

    These are the layers of an `nn.Sequential`, which are numbered, and those of a recurrent model,
    which has one embedding, one recurrent and one linear layer. Prefixes of wrappers are removed.

    Args:
      tensors: PyTorch's tensors by name.
      names: names to give.

    Returns:
      The tensors, by their old names where the layers are not certain.

    >>> bias = np.zeros(2)
    >>> list(rename({"module.0.bias": bias, "module.2.bias": bias}, ["fc1.bias", "fc2.bias"]))
    ['fc1.bias', 'fc2.bias']
    """
    tensors = _unwrap(tensors)
    modules = {_module(name) for name in tensors}
    recurrent = any("weight_hh" in name for name in names)
    is_sequential = all(re.fullmatch(r"\d+(\.\d+)*", module) for module in modules)
    is_nested = any(name.startswith(("layer1.", "encoder.")) for name in names)
    if is_nested or not (recurrent or is_sequential):
        return tensors
    ranks = {name: np.ndim(array) for name, array in tensors.items()}
    old, new = _by_kind(ranks), _by_kind(dict.fromkeys(names, 0))
    if recurrent and any(len(layers) > 1 for layers in old.values()):
        return tensors
    targets = {
        layer: target
        for kind, layers in old.items()
        for layer, target in zip(layers, new.get(kind, []), strict=False)
    }
    renamed = {}
    for name, array in tensors.items():
        module, part = _module(name), name.rpartition(".")[2]
        target = targets.get(module, module)
        renamed[f"{target}.{part}" if target else part] = array
    return renamed


def _module(name: str) -> str:
    """Name of the module that a tensor belongs to; "" for the model itself."""
    return name.rpartition(".")[0]


def _unwrap(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes the prefixes of wrappers, if all names have them."""
    names = list(tensors)
    for prefix in WRAPPERS * 2:  # one may be inside the other
        if names and all(name.startswith(prefix) for name in names):
            names = [name.removeprefix(prefix) for name in names]
    return dict(zip(names, tensors.values(), strict=True))


def _by_kind(ranks: Mapping[str, int]) -> dict[str, list[str]]:
    """Modules of each kind in the order of their numbers.

    Args:
      ranks: number of axes of each tensor; of names to give 0, as their names tell the kind.
    """
    parts: dict[str, set[str]] = {}
    for name in ranks:
        parts.setdefault(_module(name), set()).add(name.rpartition(".")[2])
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
