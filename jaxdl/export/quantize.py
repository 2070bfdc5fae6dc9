"""Stored forms of weights: float32, bfloat16 or int8 with scales.

Shapes: O output channels of a kernel, V rows of an embedding.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SCALE = ".scale"  # end of the name of an int8 array's scales
LARGEST = 127  # greatest absolute value of a quantized weight
QUANTIZED = ("", "int8")


def axis(name: str, rank: int) -> int | None:
    """Axis of the channels that have a scale of their own; None: a weight that is not quantized.

    >>> axis("params/Dense_0/kernel", 2), axis("params/embed/embedding", 2), axis("params/bias", 1)
    (-1, 0, None)
    """
    last = name.rpartition("/")[2]
    if rank < 2:
        return None
    if last == "kernel" or last.startswith("kernel_"):
        return -1
    return 0 if last == "embedding" else None


def quantize(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric quantization to int8, with the greatest absolute value of each channel.

    Args:
      array: float array.
      axis: axis of the channels.

    Returns:
      The int8 array, and float32 scales with the other axes of size 1. Their product differs from
      the array by at most half a scale.

    >>> quantize(np.array([[127.0, 0.0], [-63.6, 0.0]]), -1)[0].tolist()
    [[127, 0], [-64, 0]]
    """
    array = np.asarray(array, np.float32)
    others = tuple(n for n in range(array.ndim) if n != axis % array.ndim)
    scale = np.abs(array).max(axis=others, keepdims=True) / LARGEST
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.clip(np.rint(array / scale), -LARGEST, LARGEST).astype(np.int8), scale


def pack(arrays: Mapping[str, Any], dtype: str, quantized: str = "") -> dict[str, np.ndarray]:
    """Stored form of weights.

    Args:
      arrays: weights by name.
      dtype: float32, or bfloat16 for arrays of two or more axes that are not quantized; a model
        that computes in bfloat16 reads no more of them.
      quantized: int8, or "" for none. Kernels have a scale for each output channel, embeddings one
        for each row. Other weights are not quantized.

    Returns:
      The arrays by name, and the scales of int8 arrays under their name and SCALE.
    """
    stored = {}
    for name, leaf in arrays.items():
        array = np.asarray(leaf)
        channels = axis(name, array.ndim)
        if array.dtype != np.float32:
            stored[name] = array
        elif quantized and channels is not None:
            stored[name], stored[name + SCALE] = quantize(array, channels)
        else:
            is_half = dtype == "bfloat16" and array.ndim >= 2 and name.startswith("params/")
            stored[name] = array.astype(jnp.bfloat16) if is_half else array
    return stored


def unpack(stored: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Weights of a stored form: the inverse of `pack`, traceable."""
    arrays = {}
    for name, array in stored.items():
        scale = stored.get(name + SCALE)
        if scale is not None:
            arrays[name] = array.astype(jnp.float32) * scale
        elif not name.endswith(SCALE):
            is_half = array.dtype == jnp.bfloat16
            arrays[name] = array.astype(jnp.float32) if is_half else jnp.asarray(array)
    return arrays
