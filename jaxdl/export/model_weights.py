"""Weights of a trained model: the arrays of a task's state that `predict` reads, by name.

A weight's name is its path in the variables of the model, such as `params/Dense_0/kernel`, and the
names are those of `weights.safetensors`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jaxdl.task import Predict, State, used_arguments
from jaxdl.tasks.supervised import TrainState, eval_variables

# Starts of paths in a state, and of the names for them. An average is (params, other collections).
STARTS = {"average/0/": "params/", "average/1/": "", "model_state/": ""}


class ModelWeights(NamedTuple):
    """Weights of a trained model.

    Attributes:
      arrays: the weights by name.
      leaves: the leaves of the state, in their order.
      names: name of the weight that each leaf is; "" for a leaf that `predict` does not read.
      structure: tree structure of the state.
    """

    arrays: dict[str, jax.Array]
    leaves: tuple[Any, ...]
    names: tuple[str, ...]
    structure: Any

    def state(self, arrays: Mapping[str, Any]) -> State:
        """State with other weights.

        Args:
          arrays: the weights by name.

        Returns:
          A state for `predict` and `evaluate`; a supervised task's has its weights as an average.
        """
        leaves = zip(self.names, self.leaves, strict=True)
        values = [arrays[name] if name else leaf for name, leaf in leaves]
        return jax.tree.unflatten(self.structure, values)


def model_weights(predict: Predict, state: State, example: Mapping[str, Any]) -> ModelWeights:
    """Selects the weights that `predict` reads.

    Args:
      predict: the task's `predict`.
      state: a state of the task.
      example: a batch with the right shapes and types, with the entries that `predict` reads.
    """
    if isinstance(state, TrainState):
        collections = eval_variables(state)
        params = collections.pop("params")
        state = state._replace(params=(), model_state=(), opt_state=())
        state = state._replace(average=(params, collections))
    paths, structure = jax.tree_util.tree_flatten_with_path(state)
    used = used_arguments(predict, state, dict(example))[: len(paths)]
    names = tuple(
        _name(path) if is_used else "" for (path, _), is_used in zip(paths, used, strict=True)
    )
    leaves = tuple(leaf for _, leaf in paths)
    arrays = {name: leaf for name, leaf in zip(names, leaves, strict=True) if name}
    return ModelWeights(arrays, leaves, names, structure)


def _name(path: tuple[Any, ...]) -> str:
    """Name of the weight at a path of a state."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    for start, other in STARTS.items():
        if name.startswith(start):
            return other + name.removeprefix(start)
    return name
