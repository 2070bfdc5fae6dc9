"""One run on many devices: a mesh, the batch sharded over it, the state replicated."""

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdl.errors import UserError


def data_mesh(batch_size: int, devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of one axis, `data`, over all devices (or those given).

    Raises:
      UserError: `batch_size` does not divide into equal shards.
    """
    devices = devices or jax.devices()
    if batch_size % len(devices):
        raise UserError(
            f"--batch_size={batch_size} does not divide over {len(devices)} devices: "
            f"give a multiple of {len(devices)}"
        )
    # Auto axes: the compiler places the collectives, and indexing works as on one device.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def room(mesh: Mesh) -> float:
    """Bytes of training data that each device may hold: half its memory, and on a CPU any number.

    On a CPU the device's memory is the host's, where the data are already.
    """
    return min(memory(mesh), default=math.inf) / 2


def memory(mesh: Mesh) -> list[float]:
    """Bytes of memory of each of this process's devices; empty where they are not told."""
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in mesh.local_devices]
    return [float(limit) for limit in limits if limit]


def agreed(number: int | None) -> int | None:
    """The greatest of the numbers that the processes of a run have; None where none has one.

    With several processes this is a collective: all must call it, at the same place.
    """
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    greatest = int(np.max(multihost_utils.process_allgather(np.int32(number or 0))))
    return greatest or None


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over the mesh's `data` axis."""
    return NamedSharding(mesh, PartitionSpec("data"))
