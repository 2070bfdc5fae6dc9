from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.errors import UserError
from jaxdl.models.vit import ViT, patches

MODEL = ViT(5, patch=4, layers=2, heads=2, features=8, hidden=12, dropout=0.2)


def test_patches_are_the_squares_of_images():
    x = np.random.RandomState(0).normal(size=(2, 6, 9, 2)).astype(np.float32)
    wanted = [x[:, i : i + 3, j : j + 3].reshape(2, -1) for i in (0, 3) for j in (0, 3, 6)]
    np.testing.assert_array_equal(patches(jnp.asarray(x), 3), np.stack(wanted, axis=1))


def test_size_by_formula():
    shapes = jax.eval_shape(
        lambda: MODEL.init(jax.random.key(0), jnp.zeros((1, 8, 12, 3)), train=False)
    )
    D, hidden = 8, 12
    block = 4 * (D * D + D) + 2 * 2 * D + (D * hidden + hidden) + (hidden * D + D)
    wanted = (4 * 4 * 3 + 1) * D + 6 * D + 2 * block + 2 * D + (D + 1) * 5
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == wanted


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_classifies_in_float32_with_dropout_in_training_alone(dtype):
    model = MODEL.clone(dtype=dtype)
    x = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(1), x)
    train = jax.jit(lambda key: model.apply(variables, x, train=True, rngs={"dropout": key}))
    first = train(jax.random.key(0))
    assert first.shape == (2, 5)
    assert first.dtype == jnp.float32
    assert not jnp.array_equal(first, train(jax.random.key(1)))
    still = model.apply(variables, x, train=False)
    assert jnp.array_equal(still, model.apply(variables, x, train=False))


def test_patches_must_fill_the_images():
    with pytest.raises(UserError, match="patch=4 does not divide images of 8x10"):
        jax.eval_shape(lambda: MODEL.init(jax.random.key(0), jnp.zeros((1, 8, 10, 3)), train=False))
