"""Pytrees as flat dictionaries: naming and hashing their leaves."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def flatten(tree: object) -> dict[str, jax.Array]:
    """Returns the leaves by path (`.params['head']['kernel']`), PRNG keys as raw uint32 data.

    They may be `jax.ShapeDtypeStruct`s.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): _raw(leaf) for path, leaf in leaves}


def unflatten(like: object, flat: dict[str, jax.Array]) -> object:
    """Inverse of `flatten`: puts the leaves of `flat` into the structure (and keys) of `like`.

    Raises:
      KeyError: a path of `like` is not in `flat`.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
    new = []
    for path, leaf in leaves:
        value = flat[jax.tree_util.keystr(path)]
        if _is_key(leaf):
            value = jax.random.wrap_key_data(value, impl=_impl(leaf))
        new.append(value)
    return jax.tree.unflatten(treedef, new)


def trained(state: object) -> dict[str, jax.Array]:
    """The leaves of a state's fields named `params` or `..._params`, by path."""
    return {path: leaf for path, leaf in flatten(state).items() if "params" in path.split("[")[0]}


def count(flat: dict[str, Any]) -> int:
    """Number of scalars in some leaves."""
    return sum(leaf.size for leaf in flat.values())


def shape(leaf: Any) -> str:
    """Type and shape of a leaf, such as `float32[16,10]`."""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def of_shape(text: str, sharding: Any) -> jax.ShapeDtypeStruct:
    """Inverse of `shape`."""
    dtype, sizes = text.rstrip("]").split("[")
    shape = tuple(int(size) for size in sizes.split(",") if size)
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=sharding)


def digest(tree: object) -> str:
    """SHA-256 over every leaf's path, dtype, shape and bytes: equal digests mean equal bits."""
    return flat_digest(flatten(tree))


def flat_digest(flat: dict[str, Any]) -> str:
    """`digest` of a tree that was flattened."""
    sha = hashlib.sha256()
    for path, leaf in flat.items():
        array = np.ascontiguousarray(jax.device_get(leaf))
        sha.update(f"{path} {array.dtype} {array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def replace(tree: Any, **fields: Any) -> Any:
    """The same tree with other values of top-level fields, which all kinds of state have.

    Raises:
      KeyError: there is no such field, or it is not a single leaf.
    """
    left = set(fields)

    def choose(path: tuple[Any, ...], leaf: Any) -> Any:
        name = field(path)
        if len(path) > 1 or name not in fields:
            return leaf
        left.remove(name)
        return fields[name]

    new = jax.tree_util.tree_map_with_path(choose, tree)
    if left:
        raise KeyError(f"a state of {type(tree).__name__} lacks {', '.join(sorted(left))}")
    return new


def field(path: tuple[Any, ...]) -> str:
    """The name of the top-level field that a leaf's path begins with."""
    first = path[0]
    return str(getattr(first, "name", getattr(first, "key", "")))


def _is_key(leaf: jax.Array) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _impl(key: Any) -> Any:
    """A key's kind; of a ShapeDtypeStruct, too, which JAX itself does not tell."""
    found: list[Any] = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), key)
    return found[0]


def _raw(leaf: Any) -> Any:
    if not _is_key(leaf):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, leaf).update(sharding=leaf.sharding)
    return jax.random.key_data(leaf)
