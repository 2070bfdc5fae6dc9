"""Values that the processes of a run agree on.

All of them call these functions, in the same order.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdl.errors import UserError
from jaxdl.saved_config import differences


def is_host0() -> bool:
    """Returns True in the process that logs and writes."""
    return jax.process_index() == 0


# What the processes of a run agree on. All must call these, at the same place.


def all_max(number: int | None) -> int | None:
    """The greatest of the numbers that the processes of a run have; None where none has one."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    greatest = int(np.max(multihost_utils.process_allgather(np.int32(number or 0))))
    return greatest or None


def host0_value(compute: Callable[[], Any]) -> Any:
    """Gives all processes what the first one computes, which JSON can hold.

    Raises:
      UserError: it did, there; on all of them.
    """
    if jax.process_count() == 1:
        return compute()
    told = {}
    if is_host0():
        try:
            told = {"value": compute()}
        except UserError as error:
            told = {"error": str(error)}
    told = json.loads(_broadcast_bytes(json.dumps(told).encode()))
    if "error" in told:
        raise UserError(told["error"])
    return told["value"]


def check_same(mine: dict[str, Any]) -> None:
    """Holds what each process has against what the first has.

    Raises:
      UserError: they differ; on all of them.
    """
    differing = differences(mine, host0_value(lambda: mine))
    if all_max(len(differing)):
        what = "; ".join(differing) or "another process has others than the first and this one"
        raise UserError(
            f"the processes of a run have other flags or data ({what}): give all the same"
        )


def broadcast_from_host0(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first process's arrays, on all; of the same names and shapes everywhere."""
    if jax.process_count() == 1:
        return arrays
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(arrays)


def _broadcast_bytes(text: bytes) -> bytes:
    length = int(broadcast_from_host0({"length": np.array(len(text), np.int32)})["length"])
    padded = np.zeros(length, np.uint8)
    if is_host0():
        padded = np.frombuffer(text, np.uint8)
    return broadcast_from_host0({"text": padded})["text"].astype(np.uint8).tobytes()
