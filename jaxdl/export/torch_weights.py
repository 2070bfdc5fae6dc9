"""Weights of PyTorch models, from and to the variables of this package's models.

A PyTorch model's `state_dict` is a dictionary of arrays by name. It becomes the leaves of a Flax
model's variables by path, such as `params/Conv_0/kernel`, and back. These models have a
counterpart in PyTorch:

- VGG, ResNet and ViT: torchvision's, with torchvision's names.
- Recurrent layers: `nn.LSTM`, `nn.GRU` and `nn.RNN`, alone or between an embedding and a linear
  layer, under any names.
- LeNet-5, the small convolutional network and the perceptron: layers `conv1`, `bn1`, `fc1`, ..., or
  an `nn.Sequential`.

Values are moved, not computed anew. The exceptions are the two biases of a recurrent layer, which
are added, the embeddings of a language model, which are scaled, and the number of steps of batch
normalisation.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.errors import UserError, shortened
from jaxdl.export import tensor_file
from jaxdl.export.torch_layers import TRACKED, Link, find_links
from jaxdl.export.torch_names import match_names, module_of

Arrays = dict[str, np.ndarray]


def is_torch(names: Any) -> bool:
    """Returns True if tensors have names as in a PyTorch `state_dict`, and no paths as here.

    >>> is_torch(["features.0.weight", "features.0.bias"]), is_torch(["params/Dense_0/bias"])
    (True, False)
    """
    parts = r"(weight|bias|running_mean|running_var|in_proj_weight|weight_ih_l\d+)"
    names = list(names)
    return not any("/" in name for name in names) and any(
        re.search(rf"(^|\.){parts}$", name) for name in names
    )


def from_torch(
    tensors: Mapping[str, np.ndarray], like: Mapping[str, Any], check_shapes: bool = True
) -> Arrays:
    """Converts a PyTorch `state_dict` to the leaves of a model's variables.

    Args:
      tensors: PyTorch's tensors by name. A prefix of a wrapper, such as `module.`, is removed.
      like: variables of the model, {"params": ..., "batch_stats": ...}; only paths and shapes are
        used.
      check_shapes: refuse leaves of other shapes than in `like`. If False they are returned in
        their own shapes, such as those of a last layer for other classes.

    Returns:
      float32 arrays by path, one for each leaf of `like`.

    Raises:
      UserError: the model has no counterpart in PyTorch; or a tensor is missing, left over or has
        another shape.
    """
    given = flatten(like)
    flat = _with_steps(given)
    links = find_links(flat)
    names = [name for link in links for name in link.names]
    renamed = match_names(tensors, names)
    old = {new: name for name, new in renamed.items()}
    tensors = {renamed[name]: array for name, array in tensors.items()}
    if missing := [name for name in names if name not in tensors and not name.endswith(TRACKED)]:
        raise UserError(
            f"PyTorch's weights lack {_some(missing)} of this model: give weights of the same "
            "architecture, or change the model's flags"
        )
    if left := sorted(old[name] for name in tensors.keys() - set(names)):
        raise UserError(
            f"PyTorch's weights have {_some(left)}, which this model does not: give weights of the "
            "same architecture, or change the model's flags"
        )
    leaves: Arrays = {}
    for link in links:
        inputs = [np.asarray(tensors.get(name, 0), np.float32) for name in link.names]
        originals = [old.get(name, name) for name in link.names]
        try:
            outputs = link.from_torch(*inputs)
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise _misfit(
                [old.get(name, name) for name in link.names], inputs, link, flat
            ) from error
        for path, array in zip(link.paths, outputs, strict=True):
            if check_shapes and array.shape != tuple(flat[path].shape):
                raise _misfit(originals, inputs, link, flat)
            leaves[path] = np.asarray(array, np.float32, order="C")
    return {path: leaf for path, leaf in leaves.items() if path in given}


def to_torch(variables: Mapping[str, Any]) -> Arrays:
    """Converts a model's variables to a PyTorch `state_dict`.

    Args:
      variables: variables of the model, {"params": ..., "batch_stats": ...}.

    Returns:
      float32 arrays by PyTorch's names; `num_batches_tracked` are int64, 0 where `variables` lack
      the number of steps.

    Raises:
      UserError: the model has no counterpart in PyTorch.
    """
    flat = {path: np.asarray(leaf, np.float32) for path, leaf in flatten(variables).items()}
    flat = _with_steps(flat)
    tensors: Arrays = {}
    for link in find_links(flat):
        try:
            outputs = link.to_torch(*(flat[path] for path in link.paths))
        except (ValueError, ZeroDivisionError) as error:  # a flattened image that is not square
            raise UserError(
                f"{link.paths[0]} {list(flat[link.paths[0]].shape)} has no counterpart in PyTorch: "
                "only square images, and pooling that keeps the channels, have one"
            ) from error
        for name, array in zip(link.names, outputs, strict=True):
            dtype = np.int64 if name.endswith(TRACKED) else np.float32
            tensors[name] = np.asarray(array, dtype, order="C")
    return tensors


def _with_steps(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the numbers of steps of batch normalisation, 0 where the variables lack them.

    A model's `predict` does not read them, so an export may lack them.
    """
    norms = [path.removesuffix("mean") for path in flat if path.startswith("batch_stats/")]
    steps = {f"{norm}steps": np.zeros((), np.float32) for norm in norms if f"{norm}var" in flat}
    return {**steps, **flat}


def save_torch(variables: Mapping[str, Any], path: Path) -> None:
    """Writes a model's variables as a PyTorch `state_dict` in a safetensors file, atomically.

    PyTorch reads it by `model.load_state_dict(safetensors.torch.load_file(path))`.

    Args:
      variables: variables of the model, {"params": ..., "batch_stats": ...}.
      path: path of the file.

    Raises:
      UserError: the model has no counterpart in PyTorch.
      OSError: the file cannot be written.
    """
    tensor_file.write(path, to_torch(variables), format="pt")


def matching_modules(like: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Names of PyTorch's modules by the path of the layer that has the same outputs here.

    Args:
      like: variables of the model, {"params": ..., "batch_stats": ...}.
      tensors: tensors of the PyTorch model by name.

    Returns:
      Names by path; the model itself is "" on both sides.

    Raises:
      UserError: the model has no counterpart in PyTorch.
    """
    links = find_links(flatten(like))
    renamed = match_names(tensors, [name for link in links for name in link.names])
    modules = {module_of(new): module_of(old) for old, new in renamed.items()}
    matching = {}
    for path, module in (link.modules for link in links if link.modules):
        matching[path] = name = modules.get(module, module)
        if path.startswith("encoder/blocks_"):  # of a ViT, also each whole block
            block = re.search(r".*encoder_layer_\d+", name)
            matching["/".join(path.split("/")[:2])] = block[0] if block else name
    return matching | {"": ""}


def flatten(variables: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Flattens nested dictionaries.

    Args:
      variables: nested dictionaries of arrays.
      path: prefix of the paths.

    Returns:
      The leaves by path, such as `params/Conv_0/kernel`.

    >>> flatten({"params": {"Dense_0": {"bias": 1}}})
    {'params/Dense_0/bias': 1}
    """
    leaves: dict[str, Any] = {}
    for name, value in variables.items():
        if isinstance(value, Mapping):
            leaves |= flatten(value, f"{path}{name}/")
        else:
            leaves[f"{path}{name}"] = value
    return leaves


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `flatten`.

    Args:
      leaves: leaves by path.

    >>> unflatten({"params/Dense_0/bias": 1})
    {'params': {'Dense_0': {'bias': 1}}}
    """
    variables: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = variables
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return variables


def _misfit(
    names: list[str], inputs: list[np.ndarray], link: Link, flat: Mapping[str, Any]
) -> UserError:
    """Error for tensors with names and shapes that do not fit the leaves of a layer."""
    pairs = list(zip(names, inputs, strict=True))[:2]
    here = ", ".join(f"{path} {list(flat[path].shape)}" for path in link.paths[:2])
    there = ", ".join(f"{shortened(name)} {list(array.shape)}" for name, array in pairs)
    leaves = [np.zeros(flat[path].shape, np.float32) for path in link.paths]
    fitting = ", ".join(str(list(np.shape(array))) for array in link.to_torch(*leaves)[:2])
    return UserError(
        f"PyTorch's {there} does not fit {here}, which is {fitting} there: give weights of the "
        "same architecture, image size and classes, or change the model's flags"
    )


def _some(names: list[str]) -> str:
    """First of some names, and the number of the others."""
    first = ", ".join(shortened(name) for name in names[:3])
    return first + (f" and {len(names) - 3} more" if len(names) > 3 else "")
