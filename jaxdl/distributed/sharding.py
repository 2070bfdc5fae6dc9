"""Device meshes and shardings: batches are sharded, states are replicated or sharded.

Every process of a run runs the same program on the same hyperparameters. Operations that only one
process may do, such as reading a run folder, are done by process 0, which broadcasts the result.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from jaxdl import tree
from jaxdl.config import RunConfig
from jaxdl.errors import UserError

DATA, MODEL = "data", "model"  # the axes that a mesh may have
# (params, model_state, batch, key, ...) -> (gradient, (model_state, metrics))
Gradient = Callable[..., Any]
LARGE = 2**14  # entries; smaller arrays are not split


def mesh(config: RunConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """Device mesh described by --mesh.

    Args:
      config: the run's config.
      devices: the devices of the mesh; None: all devices.

    Raises:
      UserError: --mesh cannot be parsed or has another number of devices, or --batch_size is not a
        multiple of the `data` axis.
    """
    devices = devices or jax.devices()
    sizes = {DATA: len(devices)}
    if config.mesh:
        parts = [part.split(":") for part in config.mesh.split(",")]
        fits = all(len(p) == 2 and p[0] in (DATA, MODEL) and p[1].isdecimal() for p in parts)
        sizes = {name: int(size) for name, size in parts} if fits else {}
        if DATA not in sizes or len(sizes) != len(parts) or min(sizes.values()) < 1:
            raise UserError(f"--mesh={config.mesh}: give axes and sizes, data:8 or data:4,model:2")
    if math.prod(sizes.values()) != len(devices):
        raise UserError(
            f"--mesh={config.mesh} has {math.prod(sizes.values())} devices, and there are "
            f"{len(devices)}: give sizes whose product is {len(devices)}"
        )
    if config.batch_size % sizes[DATA]:
        raise UserError(
            f"--batch_size={config.batch_size} does not divide over {sizes[DATA]} devices: "
            f"give a multiple of {sizes[DATA]}"
        )
    # Auto axes: the compiler places the collectives, and indexing works as on one device.
    kinds = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=kinds, devices=devices)


def data_parallel(gradient: Gradient, mesh: Mesh) -> Gradient:
    """Data-parallel gradient: computed by each device on its shard, then summed over devices.

    This is `jax.shard_map` with explicit sums, on which `jax.pmap` is based since jax 0.8.
    Statistics of a whole batch, as in batch normalisation, are those of a device's shard; running
    statistics are averaged over devices.

    Args:
      gradient: (params, model_state, batch, key, ...) -> (gradient, (model_state, metrics)); the
        gradient must be a sum over examples [B, ...].
      mesh: the device mesh; batches are split over its `data` axis.

    Returns:
      A function with the same signature, for whole batches.
    """

    def on_shard(params: Any, model_state: Any, batch: Any, key: jax.Array, *args: Any) -> Any:
        device_key = jax.random.fold_in(key, jax.lax.axis_index(DATA))
        grads, (model_state, metrics) = gradient(params, model_state, batch, device_key, *args)
        grads, metrics = jax.lax.psum((grads, metrics), DATA)
        return grads, (jax.lax.pmean(model_state, DATA), metrics)

    whole, shard = PartitionSpec(), PartitionSpec(DATA)

    def on_mesh(params: Any, model_state: Any, batch: Any, key: jax.Array, *args: Any) -> Any:
        operands = (params, model_state, batch, key, *args)
        specs = (whole, whole, shard, *[whole] * (len(operands) - 3))
        mapped = jax.shard_map(
            on_shard, mesh=mesh, in_specs=specs, out_specs=whole, check_vma=False
        )
        return mapped(*operands)

    return on_mesh


def data_budget(mesh: Mesh) -> float:
    """Bytes of training data that each device may hold: half of its memory.

    Infinite on a CPU, whose memory is that of the host, where the data are already.
    """
    return min(memory(mesh), default=math.inf) / 2


def memory(mesh: Mesh) -> list[float]:
    """Bytes of memory of each of this process's devices; empty if the backend has no numbers."""
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in mesh.local_devices]
    return [float(limit) for limit in limits if limit]


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding in which every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """Sharding of the leading axis over the mesh's `data` axis."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def state_shardings(mesh: Mesh, like: Any, fsdp: bool) -> Any:
    """Shardings of a state.

    If the mesh has a `model` axis, large arrays of two or more axes are split over it along their
    last axis, the outputs of a kernel. With `fsdp`, all large arrays are also split over `data`
    along the longest remaining axis (Rajbhandari et al., 2020). An axis that does not divide
    evenly is not split.

    Args:
      mesh: the device mesh.
      like: the state, or its shapes.
      fsdp: split parameters and optimizer state over `data`.

    Returns:
      A pytree of shardings, one for each leaf of `like`.
    """

    def leaf_sharding(leaf: Any) -> NamedSharding:
        axes: list[str | None] = [None] * leaf.ndim
        if leaf.size >= LARGE:
            if leaf.ndim > 1 and leaf.shape[-1] % mesh.shape.get(MODEL, 1) == 0:
                axes[-1] = MODEL if MODEL in mesh.shape else None
            remaining = [n for n, axis in enumerate(axes) if axis is None]
            fits = [n for n in remaining if leaf.shape[n] % mesh.shape[DATA] == 0]
            if fsdp and fits:
                axes[max(fits, key=lambda n: leaf.shape[n])] = DATA
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map(leaf_sharding, like)


def with_sharding(shapes: Any, shardings: Any) -> Any:
    """Adds shardings to shapes.

    Args:
      shapes: pytree of `jax.ShapeDtypeStruct`.
      shardings: a pytree of shardings, or one sharding for all leaves.
    """
    if isinstance(shardings, Sharding):
        shardings = jax.tree.map(lambda _: shardings, shapes)
    return jax.tree.map(lambda x, sharding: x.update(sharding=sharding), shapes, shardings)


def put(arrays: Any, sharding: Sharding) -> Any:
    """Copies host arrays to the devices; each process copies the shards of its own devices.

    Args:
      arrays: pytree of whole arrays, equal in all processes.
      sharding: sharding of every array.
    """
    if jax.process_count() == 1:
        return jax.device_put(arrays, sharding)

    def put_shards(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

    return jax.tree.map(put_shards, arrays)


def fetch(leaf: Any) -> np.ndarray:
    """Copies a whole array to the host, wherever its shards are; all processes must call it."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    # np.array copies: a view of a CPU buffer would change with the next step.
    return np.array(leaf)


def on_host(state: Any) -> dict[str, np.ndarray]:
    """Copies the leaves of a state to the host.

    Returns:
      Arrays by path; random keys as raw key data.
    """
    return {path: fetch(leaf) for path, leaf in tree.flatten(state).items()}
