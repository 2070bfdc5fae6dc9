import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import tree


def state():
    return {"key": jax.random.key(3), "a": jnp.arange(6.0).reshape(2, 3), "b": (jnp.int32(1),)}


def test_flatten_and_back():
    flat = tree.flatten(state())
    assert set(flat) == {"['key']", "['a']", "['b'][0]"}
    assert flat["['key']"].dtype == jnp.uint32
    back = tree.unflatten(state(), flat)
    assert jax.tree.structure(back) == jax.tree.structure(state())
    assert tree.digest(back) == tree.digest(state())
    np.testing.assert_array_equal(jax.random.normal(back["key"]), jax.random.normal(state()["key"]))


@pytest.mark.parametrize(
    "change",
    [
        {"a": jnp.arange(6.0).reshape(3, 2)},
        {"a": jnp.arange(6).reshape(2, 3)},
        {"a": jnp.arange(6.0).reshape(2, 3).at[1, 2].add(1e-6)},
        {"key": jax.random.key(4)},
        {"c": jnp.zeros(())},
    ],
)
def test_digest_sees_every_change(change):
    assert tree.digest(state() | change) != tree.digest(state())


def test_digest_tells_zeros_apart():
    assert tree.digest(jnp.asarray(0.0)) != tree.digest(jnp.asarray(-0.0))


def test_missing_leaf():
    flat = tree.flatten(state())
    del flat["['a']"]
    with pytest.raises(KeyError):
        tree.unflatten(state(), flat)
