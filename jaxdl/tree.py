"""Pytrees as flat dictionaries: names and hashes of their leaves."""

import hashlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def flatten(tree: object) -> dict[str, jax.Array]:
    """Flattens a pytree into a dictionary from path to leaf.

    Args:
      tree: a pytree of arrays or of `jax.ShapeDtypeStruct`s.

    Returns:
      The leaves by path, such as `.params['head']['kernel']`; PRNG keys as raw uint32 data.

    >>> flatten({"head": {"bias": jnp.zeros(2)}})
    {"['head']['bias']": Array([0., 0.], dtype=float32)}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): _raw(leaf) for path, leaf in leaves}


def unflatten(like: object, flat: dict[str, jax.Array]) -> object:
    """Inverse of `flatten`.

    Args:
      like: a pytree with the structure of the result; its PRNG keys give the implementation of
        the new ones.
      flat: leaves by path.

    Returns:
      A pytree with the structure of `like` and the leaves of `flat`.

    Raises:
      KeyError: a path of `like` is not in `flat`.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
    values = []
    for path, leaf in leaves:
        value = flat[jax.tree_util.keystr(path)]
        if _is_key(leaf):
            value = jax.random.wrap_key_data(value, impl=_impl(leaf))
        values.append(value)
    return jax.tree.unflatten(treedef, values)


def trained(state: object) -> dict[str, jax.Array]:
    """Returns the leaves of a state's fields named `params` or `..._params`, by path."""
    return {path: leaf for path, leaf in flatten(state).items() if "params" in path.split("[")[0]}


def parameter_name(path: str) -> str:
    """Returns a path of `trained` as a name with slashes, without `params`.

    >>> parameter_name(".params['Dense_0']['kernel']")
    'Dense_0/kernel'
    >>> parameter_name(".generator.params['Dense_0']['bias']")
    'generator/Dense_0/bias'
    """
    parts = [field or key for field, key in re.findall(r"\.(\w+)|\['?([^'\]]*)'?\]", path)]
    return "/".join(part for part in parts if part != "params")


def count(flat: dict[str, Any]) -> int:
    """Counts the scalars in a flat tree.

    >>> count({"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)})
    9
    """
    return sum(leaf.size for leaf in flat.values())


def format_shape(leaf: Any) -> str:
    """Formats the dtype and shape of a leaf.

    >>> format_shape(jnp.zeros((16, 10)))
    'float32[16,10]'
    """
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def parse_shape(text: str, sharding: Any) -> jax.ShapeDtypeStruct:
    """Parses a dtype and shape as `format_shape` formats them, and adds a sharding."""
    dtype, sizes = text.rstrip("]").split("[")
    shape = tuple(int(size) for size in sizes.split(",") if size)
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=sharding)


def digest(tree: object) -> str:
    """Returns the SHA-256 digest of a pytree: equal digests mean equal bits.

    It covers the path, dtype, shape and bytes of every leaf.

    >>> digest({"w": jnp.zeros(2)}) == digest({"w": jnp.zeros(2)})
    True
    """
    return flat_digest(flatten(tree))


def flat_digest(flat: dict[str, Any]) -> str:
    """Returns the `digest` of a tree that is already flattened."""
    sha = hashlib.sha256()
    for path, leaf in flat.items():
        array = np.ascontiguousarray(jax.device_get(leaf))
        sha.update(f"{path} {array.dtype} {array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def replace(tree: Any, **fields: Any) -> Any:
    """Replaces top-level fields of a pytree, whether it is a named tuple, dataclass or dictionary.

    Args:
      tree: a pytree, such as a training state.
      fields: new values by field name.

    Returns:
      A pytree of the same structure.

    Raises:
      KeyError: a field does not exist, or is not a single leaf.

    >>> replace({"step": 1, "params": {"w": 2}}, step=5)
    {'params': {'w': 2}, 'step': 5}
    """
    missing = set(fields)

    def choose(path: tuple[Any, ...], leaf: Any) -> Any:
        name = field(path)
        if len(path) > 1 or name not in fields:
            return leaf
        missing.remove(name)
        return fields[name]

    new = jax.tree_util.tree_map_with_path(choose, tree)
    if missing:
        raise KeyError(f"a state of {type(tree).__name__} lacks {', '.join(sorted(missing))}")
    return new


def field(path: tuple[Any, ...]) -> str:
    """Returns the name of the top-level field in a leaf's path."""
    entry = path[0]
    return str(getattr(entry, "name", getattr(entry, "key", "")))


def _is_key(leaf: jax.Array) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _impl(key: Any) -> Any:
    """Returns the implementation of a PRNG key, which may be a `jax.ShapeDtypeStruct`.

    `jax.random.key_impl` accepts no `ShapeDtypeStruct`, so it is called while tracing.
    """
    impls: list[Any] = []
    jax.eval_shape(lambda key: impls.append(jax.random.key_impl(key)), key)
    return impls[0]


def _raw(leaf: Any) -> Any:
    """Returns a leaf with a PRNG key as its raw data."""
    if not _is_key(leaf):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, leaf).update(sharding=leaf.sharding)
    return jax.random.key_data(leaf)
