"""Layers of a Flax model: their outputs in order, and the model from one of them on.

Shapes: B examples, F features, H heads, T positions.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxdl.errors import UserError, shortened
from jaxdl.nn.interception import dense_inputs, replaced
from jaxdl.task import Outputs, Predict, State


def shapes(predict: Predict, state: State, inputs: Any) -> dict[str, Any]:
    """Shapes and types of the outputs of all layers, by path in the order of their calls.

    Args:
      predict: the model.
      state: state of the task.
      inputs: normalised inputs, of `predict.prepare`.

    Raises:
      UserError: the model is no Flax module.
    """
    order: list[str] = []  # filled by tracing, as JAX sorts the entries of a dictionary

    def features(state: State, inputs: Any) -> dict[str, Any]:
        found = predict.features(state, inputs)
        order.extend(found)
        return found

    try:
        layers = jax.eval_shape(features, state, inputs)
    except TypeError as error:
        raise UserError("it is for neural networks (Flax modules)") from error
    return {name: layers[name] for name in order if name}


def split_at(
    predict: Predict, state: State, inputs: Any, layer: str
) -> tuple[jax.Array, Callable[[jax.Array], Outputs]]:
    """Splits a model at a layer.

    Args:
      predict: the model.
      state: state of the task.
      inputs: normalised inputs, of `predict.prepare`.
      layer: path of the layer, as in `shapes`.

    Returns:
      The layer's output in its first call, and a function from such an output to the outputs of the
      model, which also sees the inputs where the model passes the layer by.

    Raises:
      UserError: there is no such layer, or its output is not one array.
    """
    found: list[jax.Array] = []

    def record(output: Any) -> Any:
        if not hasattr(output, "shape"):
            raise UserError(f"the layer {layer!r} has several outputs: name one inside it")
        found.append(output)
        return output

    with replaced(layer, record):
        predict.apply(state, inputs)

    def rest(activation: jax.Array) -> Outputs:
        with replaced(layer, lambda output: activation.astype(output.dtype)):
            return predict.of_inputs(state, inputs)

    return found[0], rest


def last_input(predict: Predict, state: State, inputs: Any) -> tuple[str, jax.Array]:
    """Features from which the last dense layer of a model makes its outputs.

    Args:
      predict: the model.
      state: state of the task.
      inputs: normalised inputs, of `predict.prepare`.

    Returns:
      The path of this layer and its input, [B, F].

    Raises:
      UserError: the model has no such layer.
    """
    with dense_inputs() as paths:
        _, found = predict.apply(state, inputs, mutable=["inputs"])
    last = paths[-1] if paths else ()
    for name in ("inputs", *last, "x"):  # inside `nn.vmap` nothing is recorded
        found = found.get(name, {})
    if not found or found[-1].ndim != 2:
        raise UserError("no dense layer reads one vector for each example")
    return "/".join(last), found[-1]


def attentions(predict: Predict, state: State, inputs: Any) -> list[jax.Array]:
    """Weights of the self-attention of each Transformer block, [B, H, T, T], the first block first.

    Raises:
      UserError: the model has none.
    """
    names = [name for name in shapes(predict, state, inputs) if _is_attention(name)]
    if not names:
        raise UserError("it is for Transformers of `nn.attention`")
    found = predict.features(state, inputs)
    return [found[name] for name in names]


def _is_attention(name: str) -> bool:
    """Returns True for the dropout layer that the weights of self-attention pass through."""
    return name == "attention/drop" or name.endswith("/attention/drop")


def spatial(layers: dict[str, Any], layer: str = "") -> str:
    """Layer for Grad-CAM: the last one whose output has positions.

    Args:
      layers: result of `shapes`.
      layer: path of the layer to use; "" for the last one that is suitable.

    Raises:
      UserError: there is none, or the named one has no positions.
    """
    fitting = [
        name
        for name, x in layers.items()
        if hasattr(x, "shape")
        and x.ndim in (3, 4)
        and max(x.shape[1:-1]) > 1
        and not _is_attention(name)
    ]
    if layer and layer not in fitting:
        has = shortened(", ".join(fitting), 300) or "none"
        raise UserError(f"--layer={layer}: of the layers with positions there are {has}")
    if not fitting:
        raise UserError("the model has no layer with positions")
    return layer or fitting[-1]


def patch_grid(positions: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the square patches of an image, of which a model has all as positions.

    Args:
      positions: number of patches, or 1 more if a class token is before them.
      height: H of the image.
      width: W of the image.

    Raises:
      UserError: no side of a patch divides the image into so many.

    >>> patch_grid(6, 8, 12), patch_grid(7, 8, 12)
    ((2, 3), (2, 3))
    """
    for side in range(1, min(height, width) + 1):
        rows, columns = height // side, width // side
        is_divided = height % side == width % side == 0
        if is_divided and positions - rows * columns in (0, 1):
            return rows, columns
    raise UserError(f"its {positions} positions are no square patches of {height}x{width} pixels")
