"""Weights to start from: the variables of a run's model, or the arrays of a safetensors file.

A run folder is read through its verified checkpoints, by the paths of their arrays. Its experiment
is not imported and its task is not built. The folder and the file may be a stranger's.

Weights are arrays by path, such as `params/Dense_0/kernel` or `batch_stats/BatchNorm_0/mean`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl import files, tree
from jaxdl.errors import UserError, shortened
from jaxdl.export import tensor_file, torch_weights
from jaxdl.run import workdir
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.checkpoint_record import DamagedError

Arrays = dict[str, np.ndarray]
SUFFIX = ".safetensors"
KEYS = r"((?:\['[^'/\\]{1,200}'\])+)"  # names in a path of `tree.flatten`
# Fields of a `tasks.supervised.TrainState` in a checkpoint, in a regular expression of each.
PARAMS, STATE = r"\.state\.params", r"\.state\.model_state"
AVERAGE, AVERAGE_STATE = r"\.state\.average\[0\]", r"\.state\.average\[1\]"
SCHEDULE_FREE = r"\.state\.opt_state[^']*?"  # a state of optax.contrib.schedule_free


class Weights(NamedTuple):
    """Weights that a run may start from.

    Attributes:
      arrays: the arrays by path.
      digest: SHA-256 of the arrays and their paths.
      about: the source, in words.
    """

    arrays: Arrays
    digest: str
    about: str


def read(source: Path, like: Mapping[str, Any]) -> Weights:
    """Reads the weights of a run folder or of a safetensors file.

    Args:
      source: run folder, or file with the suffix `.safetensors`.
      like: variables of the model that they are for, {"params": ..., ...}; used for a file with
        names of PyTorch.

    Raises:
      UserError: the source has no weights, is damaged, or cannot be read.
    """
    files.check_encoding(source.absolute())
    if source.suffix == SUFFIX:
        arrays, about = _of_file(source, like), str(source)
    elif source.is_dir():
        arrays, step = of_run(source)
        about = f"{source}, checkpoint of step {step:,}"
    else:
        raise UserError(
            f"--init_from={source} is not a run folder, nor a file with the suffix {SUFFIX}: name "
            "one of these"
        )
    _check_numbers(source, arrays)
    arrays = {name: arrays[name] for name in sorted(arrays)}
    return Weights(arrays, tree.flat_digest(arrays), about)


def _check_numbers(source: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Checks that weights are floats within the range of float32.

    Raises:
      UserError: one is not. `num_batches_tracked` of PyTorch are integers, and not checked.
    """
    for name, array in arrays.items():
        if name.endswith(torch_weights.TRACKED):
            continue
        if not jax.dtypes.issubdtype(array.dtype, np.floating):
            raise UserError(
                f"{source}: {shortened(name)} is of type {array.dtype}: give weights in floating "
                "point"
            )
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(np.asarray(array, np.float32))
        if bad.any():
            raise UserError(
                f"{source}: {shortened(name)} holds {array[bad][0]}: give weights that are finite "
                "in float32"
            )


def of_run(folder: Path) -> tuple[Arrays, int]:
    """Reads the variables that evaluation would use from a run's best checkpoint.

    They are the moving average if the run has one. If the best checkpoint is not there, as before
    the first evaluation, the newest counts.

    Args:
      folder: the run folder.

    Returns:
      The arrays by path, and the step of the checkpoint.

    Raises:
      UserError: the folder has no checkpoint, the checkpoint is damaged, or it is not that of a
        supervised model.
    """
    workdir.check_no_links(folder)
    checkpoints = Checkpoints(folder / "checkpoints")
    while steps := checkpoints.steps():
        record = checkpoints.newest_record()
        best = record["best"]["step"] if record else -1
        step = best if best in steps else steps[-1]
        try:
            leaves = checkpoints.arrays(step)
        except DamagedError as error:
            if step in checkpoints.steps():  # else an active run has just deleted it
                raise UserError(f"{error}: give another --init_from") from error
            continue
        arrays = _evaluated(leaves)
        if not arrays:
            raise UserError(
                f"{folder} is not the run of a supervised model: give another --init_from"
            )
        return arrays, step
    raise UserError(f"{folder} has no checkpoint: give --init_from=RUN of a run that has begun")


def _evaluated(leaves: Mapping[str, jax.Array]) -> Arrays:
    """Returns the variables that are evaluated, of the leaves of a supervised run's loop state."""
    params = _below(leaves, AVERAGE) or _schedule_free(leaves) or _below(leaves, PARAMS)
    model_state = _below(leaves, AVERAGE_STATE) or _below(leaves, STATE)
    return {f"params/{path}": array for path, array in params.items()} | model_state


def _schedule_free(leaves: Mapping[str, jax.Array]) -> Arrays:
    """Returns the average of schedule_free, as optax computes it; empty without that optimizer."""
    last = _below(leaves, PARAMS)
    fast = _below(leaves, SCHEDULE_FREE + r"\.z")  # without frozen leaves
    weights = [a for p, a in leaves.items() if re.fullmatch(SCHEDULE_FREE + r"\.b1", p)]
    if not fast or len(weights) != 1:
        return {}
    b1 = weights[0]

    def average(path: str, y: np.ndarray) -> np.ndarray:
        return np.asarray((y - (1 - b1) * fast[path]) / b1) if path in fast else y

    return {path: average(path, y) for path, y in last.items()}


def _below(leaves: Mapping[str, jax.Array], field: str) -> Arrays:
    """Returns the leaves of nested dictionaries below a field, by their names joined by `/`."""
    found = {}
    for path, leaf in leaves.items():
        if match := re.fullmatch(field + KEYS, path):
            found["/".join(re.findall(r"'([^']*)'", match[1]))] = np.asarray(leaf)
    return found


def _of_file(path: Path, like: Mapping[str, Any]) -> Arrays:
    """Reads a safetensors file, with names of this package or of PyTorch.

    Raises:
      UserError: the file is not whole, or two of its names are of one leaf.
    """
    tensors = _from_torch(path, tensor_file.read(path), like)
    arrays: Arrays = {}
    collections = {"params", "batch_stats", *like}
    for name, array in tensors.items():
        full = name if name.split("/")[0] in collections else f"params/{name}"
        if full in arrays:
            raise UserError(
                f"{path} has {shortened(full)} under two names: write the file with each leaf once"
            )
        arrays[full] = array
    return arrays


def _from_torch(path: Path, tensors: Arrays, like: Mapping[str, Any]) -> Arrays:
    """Converts tensors with names of PyTorch; returns others as they are."""
    if not torch_weights.is_torch(tensors):
        return tensors
    _check_numbers(path, tensors)  # a conversion makes float32 of all
    converted: Arrays = torch_weights.from_torch(tensors, like, check_shapes=False)
    return converted
