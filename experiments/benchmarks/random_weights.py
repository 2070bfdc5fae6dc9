"""Random weights by shape and name, the same in every Python with NumPy, whatever the model."""

from collections.abc import Mapping

import numpy as np

STATISTICS = ("running_var", "var", "scale")  # positive, near 1
STEPS = ("num_batches_tracked", "steps")


def fill(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Draws weights that keep the size of activations, for the names of PyTorch and of jaxdl.

    Kernels are uniform with the variance of He et al. (2015). Biases, running statistics and scales
    are random as well, so that no term of a model is left out of a comparison.

    Args:
      shapes: shape of each array by its name.
      seed: seed of the numbers.

    Returns:
      float32 arrays by name; counts of steps are 1000, int64.
    """
    arrays: dict[str, np.ndarray] = {}
    generator = np.random.RandomState(seed)  # its stream never changes
    for name, shape in sorted(shapes.items()):
        part = name.replace("/", ".").rpartition(".")[2]
        if part in STEPS:
            arrays[name] = np.array(1000, np.int64)
            continue
        noise = generator.random_sample(shape) * 2 - 1
        if part in STATISTICS or (part == "weight" and len(shape) == 1):
            value = 1 + noise / 2
        elif len(shape) < 2 or part in ("bias", "mean", "running_mean"):
            value = noise / 2
        elif part in ("embedding", "positions", "pos_embedding", "class_token"):
            value = noise
        else:
            inputs = shape[:-1] if part == "kernel" else shape[1:]
            value = noise * np.sqrt(6 / np.prod(inputs))
        arrays[name] = np.asarray(value, np.float32)
    return arrays
