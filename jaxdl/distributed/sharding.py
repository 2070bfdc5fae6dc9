"""One run on many devices and hosts: a mesh, the batch sharded over it, the state on each or split.

Every process of a run runs the same program on the same numbers. What only one of them may do, such
as to look at a run folder, the first does, and tells the others.
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
Gradient = Callable[..., Any]  # (params, model_state, batch, key, ...) -> (its, (state, metrics))
LARGE = 2**14  # entries of an array from which on it is worth splitting


def mesh(config: RunConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh that --mesh describes, over all devices (or those given).

    Raises:
      UserError: it cannot be read, asks for another number of devices, or `--batch_size` does not
        divide into equal shards.
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
            f"--mesh={config.mesh} is of {math.prod(sizes.values())} devices, and there are "
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


def on_each_device(gradient: Gradient, mesh: Mesh) -> Gradient:
    """The gradient that each device makes of its share of a batch, summed over all devices.

    What `jax.pmap` stands for, and has been made of since jax 0.8: a program for each device, in
    which the sums over devices are written down. `gradient` must be a sum over examples [B, ...].
    What looks at a whole batch sees a device's share of it; running statistics are averaged.
    """

    def of_share(params: Any, model_state: Any, batch: Any, key: jax.Array, *rest: Any) -> Any:
        own = jax.random.fold_in(key, jax.lax.axis_index(DATA))
        found, (model_state, metrics) = gradient(params, model_state, batch, own, *rest)
        found, metrics = jax.lax.psum((found, metrics), DATA)
        return found, (jax.lax.pmean(model_state, DATA), metrics)

    whole, share = PartitionSpec(), PartitionSpec(DATA)

    def everywhere(params: Any, model_state: Any, batch: Any, key: jax.Array, *rest: Any) -> Any:
        given = (params, model_state, batch, key, *rest)
        specs = (whole, whole, share, *[whole] * (len(given) - 3))
        mapped = jax.shard_map(
            of_share, mesh=mesh, in_specs=specs, out_specs=whole, check_vma=False
        )
        return mapped(*given)

    return everywhere


def room(mesh: Mesh) -> float:
    """Bytes of training data that each device may hold: half its memory, and on a CPU any number.

    On a CPU the device's memory is the host's, where the data are already.
    """
    return min(memory(mesh), default=math.inf) / 2


def memory(mesh: Mesh) -> list[float]:
    """Bytes of memory of each of this process's devices; empty where they are not told."""
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in mesh.local_devices]
    return [float(limit) for limit in limits if limit]


# Where arrays are.


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over the mesh's `data` axis."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def of_state(mesh: Mesh, like: Any, fsdp: bool) -> Any:
    """A sharding for each leaf of a state.

    Large arrays of two axes or more are split over `model`, if the mesh has it, by their last axis,
    which of a kernel is its outputs; with `fsdp` all large ones over `data` by the longest axis
    that is left (Rajbhandari et al., 2020). What does not divide stays whole.

    Args:
      mesh: the devices.
      like: the state, or its shapes.
      fsdp: whether parameters and the optimizer's state are split over `data`.
    """

    def one(leaf: Any) -> NamedSharding:
        axes: list[str | None] = [None] * leaf.ndim
        if leaf.size >= LARGE:
            if leaf.ndim > 1 and leaf.shape[-1] % mesh.shape.get(MODEL, 1) == 0:
                axes[-1] = MODEL if MODEL in mesh.shape else None
            left = [n for n, axis in enumerate(axes) if axis is None]
            fits = [n for n in left if leaf.shape[n] % mesh.shape[DATA] == 0]
            if fsdp and fits:
                axes[max(fits, key=lambda n: leaf.shape[n])] = DATA
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map(one, like)


def placed(shapes: Any, shardings: Any) -> Any:
    """Shapes of arrays in these shardings: a tree of them, or one for all."""
    if isinstance(shardings, Sharding):
        shardings = jax.tree.map(lambda _: shardings, shapes)
    return jax.tree.map(lambda x, where: x.update(sharding=where), shapes, shardings)


def put(arrays: Any, sharding: Sharding) -> Any:
    """Arrays of the host on the devices; each process sends what its own devices hold."""
    if jax.process_count() == 1:
        return jax.device_put(arrays, sharding)

    def one(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

    return jax.tree.map(one, arrays)


def fetched(leaf: Any) -> np.ndarray:
    """A copy on the host of a whole array, wherever its parts are; all processes must call it."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    # A copy: a view of a buffer on the CPU would change with the next step.
    return np.array(leaf)


def on_host(state: Any) -> dict[str, np.ndarray]:
    """The leaves of a state by path, `fetched`; keys as raw data."""
    return {path: fetched(leaf) for path, leaf in tree.flatten(state).items()}
