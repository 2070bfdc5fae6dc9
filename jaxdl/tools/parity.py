"""The `parity` command: outputs of each layer for the same weights in PyTorch and in a run's model.

PyTorch's side is a safetensors file with the arrays `input`, `weights/NAME` for each tensor of the
`state_dict` and `layers/MODULE` for the outputs of each module; that of the model is `layers/`.

Shapes: B examples.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.errors import TrainingError, UserError, first_line, printable, shortened
from jaxdl.export import tensor_file, torch_weights
from jaxdl.run.restore import Restored, restore
from jaxdl.run.run_folder import Run
from jaxdl.tasks.supervised import TrainState, eval_variables

INPUT, WEIGHTS, LAYERS = "input", "weights/", "layers/"  # names in the file


class Layer(NamedTuple):
    """Comparison of a layer's outputs.

    Attributes:
      path: path of the layer here; "" for the model.
      module: name of PyTorch's module.
      shape: shape of the outputs here.
      error: greatest difference, relative to the greatest absolute value in PyTorch; nan if a
        value is not a number.
    """

    path: str
    module: str
    shape: tuple[int, ...]
    error: float


def parity(run: Run, path: Path, tolerance: float) -> None:
    """Prints the error of each layer, in the order in which they are computed here.

    Args:
      run: an opened run.
      path: safetensors file of PyTorch's side. Without weights, the run's own are used.
      tolerance: greatest relative error.

    Raises:
      UserError: the file is damaged or incomplete, or does not fit the run's model.
      TrainingError: a layer's error is above the tolerance.
    """
    if not 0 <= tolerance < float("inf"):
        raise UserError(f"--tolerance={tolerance}: give a number from 0 on, such as 1e-4")
    arrays = tensor_file.read(path)
    if INPUT not in arrays:
        raise UserError(f"{path} has no array {INPUT!r}: docs/pytorch.md shows how to write it")
    layers = compare(restore(run), arrays)
    if not layers:
        raise UserError(f"{path} has outputs of no layer of the model: name them {LAYERS}MODULE")
    width = max(len(layer.path or "(model)") for layer in layers)
    for layer in layers:
        mark = "" if layer.error <= tolerance else "  differs"
        module = printable(shortened(layer.module or "(model)"))
        print(f"{layer.path or '(model)':<{width}}  {layer.error:8.1e}{mark:<9}  {module}")
    wrong = [layer for layer in layers if not layer.error <= tolerance]
    if wrong:
        raise TrainingError(
            f"{len(wrong)} of {len(layers)} layers differ by more than --tolerance={tolerance}; "
            f"the first is {wrong[0].path or '(model)'}, in PyTorch "
            f"{shortened(wrong[0].module or '(model)')}"
        )
    print(f"{len(layers)} layers agree within {tolerance}")


def compare(restored: Restored, arrays: Mapping[str, np.ndarray]) -> list[Layer]:
    """Compares the layers that both sides have.

    Args:
      restored: a run's task and state.
      arrays: arrays of PyTorch's side by their names in the file.

    Raises:
      UserError: the arrays do not fit the model.
    """
    state = restored.saved.state
    if not isinstance(state, TrainState):
        raise UserError(f"a state of {type(state).__name__} has no one model: name another run")
    variables = eval_variables(state)
    weights = _part(arrays, WEIGHTS)
    if weights:
        leaves = torch_weights.from_torch(weights, variables)
        variables = torch_weights.unflatten({path: jnp.asarray(a) for path, a in leaves.items()})
    others = {name: value for name, value in variables.items() if name != "params"}
    # The average is what is evaluated, whatever the optimizer.
    state = state._replace(average=(variables["params"], others))
    inputs = _inputs(restored, arrays[INPUT])
    try:
        features = restored.task.predict.features(state, inputs)
    except (TypeError, ValueError) as error:  # such as an input of another length
        raise UserError(
            f"the model cannot be applied to the input {list(inputs.shape)} ({first_line(error)}): "
            "write the file with a batch of the run's shape"
        ) from error
    outputs, layers = _part(arrays, LAYERS), []
    modules = torch_weights.matching_modules(variables, weights)
    for path, value in features.items():
        module = modules.get(path)
        if module is not None and module in outputs:
            ours = np.asarray(jax.tree.leaves(value)[0], np.float64)
            theirs = _in_layout(outputs[module], ours)
            if theirs.shape != ours.shape:
                raise UserError(
                    f"{path or '(model)'} has outputs {list(ours.shape)}, and PyTorch's "
                    f"{shortened(module or '(model)')} {list(outputs[module].shape)}: write the "
                    "file with the outputs of the same layer for the same batch"
                )
            layers.append(Layer(path, module, ours.shape, _error(ours, theirs)))
    return layers


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Arrays whose names have a prefix, without it."""
    named = {name: array for name, array in arrays.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): array for name, array in named.items()}


def _inputs(restored: Restored, x: np.ndarray) -> jax.Array:
    """The batch in the layout of the model; images are [B, C, H, W] there, [B, H, W, C] here.

    Raises:
      UserError: it has not the shape of the model's input.
    """
    batch = restored.spec.example(len(x) if x.ndim else 1)
    example: Any = jax.eval_shape(restored.task.predict.prepare, batch)
    if not isinstance(example, jax.ShapeDtypeStruct):
        raise UserError("this model has more than one input: parity compares models of one")
    moved = np.moveaxis(x, 1, -1) if x.ndim == 4 else x
    is_sequence = jnp.issubdtype(example.dtype, jnp.integer)
    expected = example.shape[:1] if is_sequence else example.shape
    if moved.ndim != len(example.shape) or moved.shape[: len(expected)] != expected or not x.size:
        layout = f"{list(example.shape)}" + (", channels last" if x.ndim == 4 else "")
        raise UserError(
            f"the array {INPUT!r} is {list(x.shape)}, and the model's input is {layout}: write the "
            "file with a batch of that shape"
        )
    return jnp.asarray(moved, example.dtype)


def _in_layout(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """PyTorch's outputs in the layout of those here, float64."""
    theirs = np.asarray(theirs, np.float64)
    if theirs.ndim == 4:
        theirs = np.moveaxis(theirs, 1, -1)
        if ours.ndim == 3 and theirs.size == ours.size:  # patches
            theirs = theirs.reshape(ours.shape)
    elif theirs.ndim == 3 and theirs.shape != ours.shape:  # sequences with time first
        theirs = theirs.swapaxes(0, 1)
    return theirs


def _error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Relative error of outputs of one shape."""
    greatest = np.abs(theirs).max(initial=0)
    with np.errstate(invalid="ignore"):  # of infinite values: nan, which counts as a difference
        return float(np.abs(ours - theirs).max(initial=0) / (greatest or 1))
