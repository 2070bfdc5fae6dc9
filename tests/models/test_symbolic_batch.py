"""Every model lowers once for all platforms and numbers of examples."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.nn.convolution import convolve
from tests.models.zoo import CASES, built, inputs, told

PLATFORMS = ["cpu", "cuda", "tpu"]


def exported(f, x):
    """The export of f for any number of examples like those of x."""
    (b,) = jax.export.symbolic_shape("b")
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct((b, *a.shape[1:]), a.dtype), x)
    return jax.export.export(jax.jit(f), platforms=PLATFORMS)(like)


def assert_same(f, x, close=1e-6):
    """The export called with 1 and 7 examples gives what f does; of x there are 7."""
    export, direct = exported(f, x), jax.jit(f)(x)
    for count in (1, 7):
        found = jax.jit(export.call)(jax.tree.map(lambda a, n=count: a[:n], x))
        wanted = jax.tree.map(lambda a, n=count: a[:n], direct)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=close, atol=close), found, wanted)


@pytest.mark.parametrize("name", CASES)
def test_any_number_of_examples(name):
    model, variables = built(name, "float32")
    assert_same(lambda x: model.apply(variables, x, **told(CASES[name])), inputs(CASES[name], 7))


@pytest.mark.parametrize("name", CASES)
def test_lowers_in_bfloat16(name):
    model, variables = built(name, "bfloat16")
    x = inputs(CASES[name], 7)
    export = exported(lambda x: model.apply(variables, x, **told(CASES[name])), x)
    calls = re.findall(r"custom_call @(\w+)", export.mlir_module())
    assert export.platforms == tuple(PLATFORMS)
    assert set(calls) <= {"shape_assertion"}  # of the number of examples, that it is one at least


@pytest.mark.parametrize("name", ["cnn", "classifier_gru"])
def test_half_precision_is_that_of_any_number(name):
    """Models whose bfloat16 a CPU computes in parts of a known batch, and others."""
    model, variables = built(name, "bfloat16")
    f = lambda x: model.apply(variables, x, **told(CASES[name]))  # noqa: E731
    assert_same(f, inputs(CASES[name], 7), 2e-2)


@pytest.mark.parametrize("name", ["transformer", "language", "translator", "additive"])
def test_decoding(name):
    """A token after an empty or an encoded start."""
    model, variables = built(name, "float32")
    x = inputs(CASES[name], 7)

    def step(x):
        if isinstance(x, tuple):
            caches, tokens = model.apply(variables, x[0], method="encode"), x[1][:, 0]
        else:
            caches, tokens = model.start(x.shape[0]), x[:, 0]
        return model.apply(variables, tokens, caches, 0, method="next")[0]

    assert_same(step, x)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_and_kernels_larger_than_images(dtype):
    """Convolutions by patches, which a CPU computes in parts of a known batch."""
    random = np.random.RandomState(0)
    x, w = random.normal(size=(7, 2, 3, 2)), random.normal(size=(3, 4, 2, 3))

    def both(x):
        y, back = jax.vjp(lambda w: convolve(x, w, (1, 1), ((1, 1), (2, 1))), jnp.asarray(w, dtype))
        return y, jax.vmap(back)(jnp.stack([y, 2 * y]))[0]

    x = jnp.asarray(x, dtype)
    export = exported(both, x)
    for count in (1, 7):
        found, wanted = jax.jit(export.call)(x[:count]), jax.jit(both)(x[:count])
        for a, b in zip(found, wanted, strict=True):
            a, b = (np.asarray(leaf, np.float32) for leaf in (a, b))
            close = 1e-5 if dtype == "float32" else 2e-2
            np.testing.assert_allclose(a, b, rtol=close, atol=close * np.abs(b).max())
