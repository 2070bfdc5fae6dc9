"""Collectives on host values: the processes of a run agree on numbers, texts and arrays.

All processes must call these functions in the same order.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdl.errors import UserError
from jaxdl.saved_config import differences


def is_host0() -> bool:
    """Returns True in process 0, the one that logs and writes."""
    return jax.process_index() == 0


def all_max(number: int | None) -> int | None:
    """Maximum of a positive number over all processes.

    Args:
      number: this process's number; None counts as 0.

    Returns:
      The maximum; None if it is 0.
    """
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    greatest = int(np.max(multihost_utils.process_allgather(np.int32(number or 0))))
    return greatest or None


def barrier() -> None:
    """Waits until all processes call it."""
    all_max(1)


def host0_value(compute: Callable[[], Any]) -> Any:
    """Computes a value in process 0, and returns it in all processes.

    Args:
      compute: function without arguments; its result must be serialisable as JSON.

    Raises:
      UserError: `compute` raised it in process 0; it is then raised in all processes.
    """
    if jax.process_count() == 1:
        return compute()
    message = {}
    if is_host0():
        try:
            message = {"value": compute()}
        except UserError as error:
            message = {"error": str(error)}
    message = json.loads(_broadcast_bytes(json.dumps(message).encode()))
    if "error" in message:
        raise UserError(message["error"])
    return message["value"]


def check_same(mine: dict[str, Any]) -> None:
    """Checks that all processes have the values of process 0.

    Args:
      mine: this process's values by name, serialisable as JSON.

    Raises:
      UserError: the values of a process differ; raised in all processes.
    """
    differing = differences(mine, host0_value(lambda: mine))
    if all_max(len(differing)):
        details = "; ".join(differing) or "those of another process differ"
        raise UserError(
            f"the processes of a run have different flags or data ({details}): give all the same"
        )


def broadcast_from_host0(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of process 0 in all processes.

    Args:
      arrays: arrays by name, of the same names, shapes and dtypes in all processes.
    """
    if jax.process_count() == 1:
        return arrays
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(arrays)


def _broadcast_bytes(text: bytes) -> bytes:
    """Returns the bytes of process 0, which may be of any length, in all processes."""
    length = int(broadcast_from_host0({"length": np.array(len(text), np.int32)})["length"])
    padded = np.zeros(length, np.uint8)
    if is_host0():
        padded = np.frombuffer(text, np.uint8)
    return broadcast_from_host0({"text": padded})["text"].astype(np.uint8).tobytes()
