"""Pytrees as flat dictionaries: naming and hashing their leaves."""

import hashlib

import jax
import numpy as np


def flatten(tree: object) -> dict[str, jax.Array]:
    """Returns the leaves by path (`.params['head']['kernel']`), PRNG keys as raw uint32 data."""
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
            value = jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
        new.append(value)
    return jax.tree.unflatten(treedef, new)


def digest(tree: object) -> str:
    """SHA-256 over every leaf's path, dtype, shape and bytes: equal digests mean equal bits."""
    sha = hashlib.sha256()
    for path, leaf in flatten(tree).items():
        array = np.ascontiguousarray(jax.device_get(leaf))
        sha.update(f"{path} {array.dtype} {array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def _is_key(leaf: jax.Array) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _raw(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf
