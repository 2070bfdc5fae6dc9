"""Layers of models that exist in PyTorch as well: their tensors on both sides.

Here a model is known by the paths of its leaves alone, such as `params/Conv_0/kernel`, so that the
weights of any run convert without its code. Kernels are transposed, and the rows of a dense layer
after a flattened image are permuted: images are [H, W, C] here and [C, H, W] there.

Shapes: k by l kernels with I inputs and O outputs, images of H by W with C channels, D features,
p pixels per side of a patch.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdl.errors import UserError
from jaxdl.export.torch_names import CELLS, RESNET_BLOCKS, resnet_layers, vgg_layers

Convert = Callable[..., tuple[np.ndarray, ...]]

TRACKED = "num_batches_tracked"
SETTLED = 180  # steps after which batch normalisation averages with its final decay of 0.9
MOST_STEPS = 2**24  # float32 counts no further
FAMILIES = (
    "VGG, ResNet without pre-activation, ViT, LeNet-5, CNN, MLP, and recurrent layers with or "
    "without an embedding and a linear layer"
)


class Link(NamedTuple):
    """One layer on both sides.

    Attributes:
      names: names of PyTorch's tensors.
      paths: paths of the leaves here.
      from_torch: PyTorch's tensors -> leaves.
      to_torch: leaves -> PyTorch's tensors.
      modules: (path of the layer here, name of PyTorch's module) with equal outputs; None if one
        side has no such module.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    from_torch: Convert
    to_torch: Convert
    modules: tuple[str, str] | None = None


def find_links(flat: Mapping[str, Any]) -> list[Link]:
    """Recognises a model by the paths and shapes of its leaves.

    Args:
      flat: arrays or shapes by path.

    Raises:
      UserError: the model has no counterpart in PyTorch.
    """
    for family in (_vit, _recurrent, _resnet, _chain):
        try:
            links = list(family(flat))
        except KeyError:  # a layer of this family is missing
            continue
        if links and {path for link in links for path in link.paths} == set(flat):
            return links
    raise UserError(
        "this model has no counterpart in PyTorch with names to convert: only "
        f"{FAMILIES} have one; a norm must be batch or none"
    )


def _same(name: str, path: str) -> Link:
    """Tensor that is equal on both sides."""
    return Link((name,), (path,), lambda a: (a,), lambda a: (a,))


def _conv(flat: Mapping[str, Any], module: str, layer: str) -> Link:
    """Convolution: [O, I, k, l] there, [k, l, I, O] here."""
    return _layer(
        flat,
        module,
        layer,
        lambda weight: weight.transpose(2, 3, 1, 0),
        lambda kernel: kernel.transpose(3, 2, 0, 1),
        compare=not layer.startswith("ConvPool"),  # whose output is pooled
    )


def _dense(flat: Mapping[str, Any], module: str, layer: str, channels: int = 0) -> Link:
    """Dense layer: [O, I] there, [I, O] here; `channels`: C of a flattened image before it."""

    def from_torch(weight: np.ndarray) -> np.ndarray:
        if not channels:
            return weight.transpose(1, 0)
        side = _side(weight.shape[1], channels)
        images = weight.reshape(len(weight), channels, side, side)
        return images.transpose(2, 3, 1, 0).reshape(-1, len(weight))

    def to_torch(kernel: np.ndarray) -> np.ndarray:
        if not channels:
            return kernel.transpose(1, 0)
        rows, outputs = kernel.shape
        side = _side(rows, channels)
        images = kernel.reshape(side, side, channels, outputs)
        return images.transpose(3, 2, 0, 1).reshape(outputs, -1)

    return _layer(flat, module, layer, from_torch, to_torch)


def _layer(
    flat: Mapping[str, Any],
    module: str,
    layer: str,
    from_torch: Callable[[np.ndarray], np.ndarray],
    to_torch: Callable[[np.ndarray], np.ndarray],
    compare: bool = True,
) -> Link:
    """Layer with a kernel, and with a bias if it has one here."""
    biases = [path for path in (f"params/{layer}/bias",) if path in flat]
    names = (f"{module}.weight", *(f"{module}.bias" for _ in biases))
    return Link(
        names,
        (f"params/{layer}/kernel", *biases),
        lambda weight, *bias: (from_torch(weight), *bias),
        lambda kernel, *bias: (to_torch(kernel), *bias),
        (layer, module) if compare else None,
    )


def _layer_norm(module: str, layer: str) -> Link:
    names = f"{module}.weight", f"{module}.bias"
    paths = f"params/{layer}/scale", f"params/{layer}/bias"
    return Link(names, paths, lambda *a: a, lambda *a: a, (layer, module))


def _batch_norm(module: str, layer: str) -> Link:
    """Batch normalisation, with running statistics and the number of steps."""
    parts = ("weight", "bias", "running_mean", "running_var", TRACKED)
    names = tuple(f"{module}.{part}" for part in parts)
    paths = tuple(f"params/{layer}/{part}" for part in ("scale", "bias"))
    paths += tuple(f"batch_stats/{layer}/{part}" for part in ("mean", "var", "steps"))

    def from_torch(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        *others, mean, var, tracked = arrays
        steps = min(float(tracked.reshape(())), MOST_STEPS)
        # Published weights often have no count, or 0. The statistics are then taken as settled:
        # with a count of 0 the first step of training would replace them.
        if steps <= 0 and (mean.any() or (var != 1).any()):
            steps = SETTLED
        return *others, mean, var, np.array(steps, np.float32)

    def to_torch(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return *arrays[:-1], np.rint(arrays[-1])

    return Link(names, paths, from_torch, to_torch, (layer, module))


def _chain(flat: Mapping[str, Any]) -> Iterator[Link]:
    """Convolutions, then dense layers, with batch normalisation between: VGG, LeNet, CNN, MLP."""
    kind = "ConvPool" if "params/ConvPool_0/kernel" in flat else "Conv"
    if f"params/{kind}_0/kernel" in flat and f"params/{kind}_0/bias" not in flat:
        return  # such as a ResNet with pre-activation
    convs, denses, norms = (_count(flat, name) for name in (kind, "Dense", "BatchNorm"))
    names = vgg_layers(convs, norms, denses)
    numbers = range(1, max(convs, denses, norms) + 1)
    conv_names, norm_names, dense_names = names or (
        [f"{part}{n}" for n in numbers] for part in ("conv", "bn", "fc")
    )
    for n in range(convs):
        yield _conv(flat, conv_names[n], f"{kind}_{n}")
    for n in range(norms):
        yield _batch_norm(norm_names[n], f"BatchNorm_{n}")
    for n in range(denses):
        channels = flat[f"params/{kind}_{convs - 1}/kernel"].shape[-1] if convs and n == 0 else 0
        yield _dense(flat, dense_names[n], f"Dense_{n}", channels)


def _resnet(flat: Mapping[str, Any]) -> Iterator[Link]:
    """ResNet without pre-activation; convolutions and norms are numbered in the same order."""
    convs = _count(flat, "Conv")
    if convs not in RESNET_BLOCKS or _count(flat, "BatchNorm") != convs:
        return
    for n, (conv, norm) in enumerate(resnet_layers(convs)):
        yield _conv(flat, conv, f"Conv_{n}")
        yield _batch_norm(norm, f"BatchNorm_{n}")
    yield _dense(flat, "fc", "Dense_0")


def _vit(flat: Mapping[str, Any]) -> Iterator[Link]:
    """ViT; [D, C, p, p] of the patches there, [p * p * C, D] here."""

    def from_torch(weight: np.ndarray) -> np.ndarray:
        return weight.transpose(2, 3, 1, 0).reshape(-1, len(weight))

    def to_torch(kernel: np.ndarray) -> np.ndarray:
        rows, features = kernel.shape
        channels = 1 if math.isqrt(rows) ** 2 == rows else 3
        side = _side(rows, channels)
        return kernel.reshape(side, side, channels, features).transpose(3, 2, 0, 1)

    blocks = _count(flat, "encoder/blocks", "wide/kernel")
    if not blocks or "params/embed/kernel" not in flat:
        return
    if "params/class_token" in flat:
        yield _same("class_token", "params/class_token")
    yield _same("encoder.pos_embedding", "params/positions")
    yield _layer(flat, "conv_proj", "embed", from_torch, to_torch)
    for n in range(blocks):
        module, block = f"encoder.layers.encoder_layer_{n}", f"encoder/blocks_{n}"
        yield _layer_norm(f"{module}.ln_1", f"{block}/norms_0")
        yield _attention(f"{module}.self_attention", f"{block}/attention")
        yield _dense(flat, f"{module}.self_attention.out_proj", f"{block}/attention/out")
        yield _layer_norm(f"{module}.ln_2", f"{block}/norms_1")
        yield _dense(flat, f"{module}.mlp.0", f"{block}/wide")
        yield _dense(flat, f"{module}.mlp.3", f"{block}/narrow")
    yield _layer_norm("encoder.ln", "encoder/last")
    yield _dense(flat, "heads.head", "head")


def _attention(module: str, layer: str) -> Link:
    """Projections of queries, keys and values: one tensor [3 * D, D] there, three here."""
    names = f"{module}.in_proj_weight", f"{module}.in_proj_bias"
    parts = [f"params/{layer}/{part}" for part in ("query", "key", "value")]
    paths = *(f"{part}/kernel" for part in parts), *(f"{part}/bias" for part in parts)

    def from_torch(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
        return *np.split(weight.transpose(1, 0), 3, axis=1), *np.split(bias, 3)

    def to_torch(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.concatenate(arrays[:3], axis=1).transpose(1, 0), np.concatenate(arrays[3:])

    return Link(names, paths, from_torch, to_torch, (layer, module))


def _recurrent(flat: Mapping[str, Any]) -> Iterator[Link]:
    """Recurrent layers, alone or between an embedding and a linear layer."""
    # The layers of a classifier, of a language model, and those of a `Recurrent` alone.
    for embed, layers, out in (
        ("Embed_0", "Recurrent_0/", "Dense_0"),
        ("embed", "recurrent/", "out"),
        ("", "", ""),
    ):
        if f"params/{layers}forward_0/kernel" not in flat:
            continue
        features, columns = flat[f"params/{layers}forward_0/kernel"].shape
        cell = CELLS[columns // features]
        for n in range(_count(flat, f"{layers}forward")):
            for side, suffix in (("forward", ""), ("backward", "_reverse")):
                if f"params/{layers}{side}_{n}/kernel" in flat:
                    yield _direction(cell, f"l{n}{suffix}", f"{layers}{side}_{n}", layers[:-1])
        if embed:
            yield _embedding(embed, features if embed == "embed" else 0)
            yield _dense(flat, "linear", out)


def _embedding(layer: str, features: int) -> Link:
    """Embedding; that of a language model is scaled by sqrt(F) there, and in the model here."""
    scale = np.float32(features**0.5 if features else 1)
    return Link(
        ("embedding.weight",),
        (f"params/{layer}/embedding",),
        lambda weight: (weight / scale,),
        lambda table: (table * scale,),
        None if features else (layer, "embedding"),
    )


def _direction(cell: str, suffix: str, layer: str, stack: str) -> Link:
    """One direction of a recurrent layer, whose gates are in the same order on both sides.

    PyTorch has a bias of the inputs and one of the states. Here they are one, except that of a
    GRU's last gate, which multiplies the state's with its bias.
    """
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    module = f"{cell}." if stack else ""
    names = tuple(f"{module}{part}_{suffix}" for part in parts)
    paths = [f"params/{layer}/{part}" for part in ("input/kernel", "kernel", "input/bias")]
    gru = cell == "gru"
    if gru:
        paths.append(f"params/{layer}/bias")

    def from_torch(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        weight_ih, weight_hh, bias_ih, bias_hh = arrays
        own = len(bias_hh) // 3 if gru else 0  # entries of the bias that stays apart
        shared = len(bias_hh) - own
        added = np.where(bias_hh == 0, bias_ih, bias_ih + bias_hh)  # keeps a bias of -0.0
        bias = np.concatenate([added[:shared], bias_ih[shared:]])
        kernels = weight_ih.transpose(1, 0), weight_hh.transpose(1, 0)
        return *kernels, bias, *([bias_hh[shared:]] if gru else [])

    def to_torch(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        kernel, inner, bias, *own = arrays
        bias_hh = np.zeros_like(bias)
        if own:
            bias_hh[-len(own[0]) :] = own[0]
        return kernel.transpose(1, 0), inner.transpose(1, 0), bias, bias_hh

    return Link(names, tuple(paths), from_torch, to_torch, (stack, cell) if stack else None)


def _count(flat: Mapping[str, Any], prefix: str, part: str = "") -> int:
    """Number of layers PREFIX_0, PREFIX_1, ..."""
    part = part or ("scale" if "Norm" in prefix else "kernel")
    return next(n for n in range(len(flat) + 1) if f"params/{prefix}_{n}/{part}" not in flat)


def _side(size: int, channels: int) -> int:
    """Side of a square image that is flattened; raises ValueError if it is not square."""
    side = math.isqrt(size // channels)
    if side * side * channels != size:
        raise ValueError(f"{size} is not a square of pixels with {channels} channels")
    return side
