from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data.image_sources import digits, synthetic
from jaxdl.models import airbench
from jaxdl.models.airbench import MIN_SIZE, Airbench, whiten
from jaxdl.nn.convolution import convolve


def normalized(images):
    x = images.astype(np.float64)
    return ((x - x.mean((0, 1, 2))) / x.std((0, 1, 2))).astype(np.float32)


def network(**options):
    kernel = np.random.RandomState(0).normal(size=(2, 2, 3, 24)).astype(np.float32)
    return Airbench(10, kernel, **options)


def shapes(model, size=32):
    x = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    return jax.eval_shape(
        lambda key, x: model.init_with_output(key, x, train=False), jax.random.key(0), x
    )


@pytest.mark.parametrize("images", [synthetic(12).train["image"], digits().train["image"]])
def test_first_layer_whitens(images):
    x = normalized(images[:500])
    P = 4 * x.shape[-1]
    kernel = whiten(x, epsilon=0)
    assert kernel.shape == (2, 2, x.shape[-1], 2 * P)
    y = np.asarray(convolve(jnp.asarray(x), jnp.asarray(kernel), (1, 1), ((0, 0), (0, 0))))
    y = y.reshape(-1, 2 * P).astype(np.float64)
    np.testing.assert_allclose(y[:, :P].T @ y[:, :P] / len(y), np.eye(P), atol=2e-3)
    np.testing.assert_allclose(y[:, P:], -y[:, :P], atol=1e-4)


def test_epsilon_bounds_what_is_made_of_noise():
    flat = np.ones((4, 9, 9, 1), np.float32)  # three of its patches' four variances are zero
    kernel = whiten(flat, epsilon=0.25).reshape(4, 8)
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0)[:3], 2, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(kernel[:, 3]), 1 / np.sqrt(4.25), rtol=1e-5)


def test_parameters_are_the_published_ones():
    # What airbench94 trains, after the published widths: 1.97 million.
    _, variables = shapes(network())
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 1_971_352
    assert variables["constants"]["whitening"].shape == (2, 2, 3, 24)


@pytest.mark.parametrize("size", [MIN_SIZE, 16, 32, 33])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_any_size_gives_float32_logits_of_float32_parameters(size, dtype):
    logits, variables = shapes(network(width_multiplier=0.1, dtype=dtype), size)
    assert (logits.shape, logits.dtype) == ((2, 10), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_frozen_has_no_bias_and_is_otherwise_the_same():
    x = jax.random.normal(jax.random.key(1), (4, 9, 9, 3))
    learns, frozen = network(width_multiplier=0.1), network(width_multiplier=0.1, frozen=True)
    variables = jax.jit(lambda: learns.init(jax.random.key(0), x, train=False))()
    params = dict(variables["params"])
    assert params.pop("whitening_bias").shape == (24,)
    given = ((learns, variables), (frozen, variables | {"params": params}))
    one, two = (jax.jit(partial(net.apply, train=False))(values, x) for net, values in given)
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (5, 3)])
def test_identity_passes_its_inputs(inputs, outputs):
    kernel = airbench.dirac(jax.random.key(0), (3, 3, inputs, outputs))
    x = jax.random.normal(jax.random.key(1), (2, 6, 6, inputs))
    y = convolve(x, kernel, (1, 1), ((1, 1), (1, 1)))
    np.testing.assert_allclose(y[..., :3], x[..., :3], atol=1e-6)
    rest = np.asarray(kernel)[..., min(inputs, outputs) :]
    assert (abs(rest) <= 1 / np.sqrt(9 * inputs)).all()
    assert (rest != 0).all()


def agree(plain, by_blocks, *given):
    """The same values and gradients, to float32's rounding."""
    wanted = jax.jit(plain)(*given)
    np.testing.assert_allclose(jax.jit(by_blocks)(*given), wanted, atol=1e-4)
    weights = jax.random.normal(jax.random.key(9), wanted.shape)
    every = range(len(given))
    gradients = [
        jax.jit(jax.grad(lambda *x, form=form: jnp.sum(weights * form(*x)), every))(*given)
        for form in (plain, by_blocks)
    ]
    for theirs, ours in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize(("height", "width"), [(9, 9), (10, 13)])
def test_stem_by_blocks_is_the_same_function(height, width):
    shapes = ((3, height, width, 3), (2, 2, 3, 8), (8,), (3, 3, 8, 5))
    keys = jax.random.split(jax.random.key(0), 4)
    given = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
    agree(airbench.stem, airbench.stem_by_blocks, *given)


@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 7), (5, 8), (2, 3)])
def test_pooling_by_blocks_is_the_same_function(height, width):
    x = jax.random.normal(jax.random.key(0), (3, height, width, 4))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 6))
    agree(airbench.conv_pool, airbench.pooled_by_blocks, x, kernel)
