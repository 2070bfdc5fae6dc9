import jax
import jax.numpy as jnp
import pytest

from jaxdl import tree
from jaxdl.models.vgg import VGG
from jaxdl.nn.norm import NORMS


def parameters(model, size):
    x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    init = jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), x)
    return sum(leaf.size for leaf in jax.tree.leaves(init["params"]))


@pytest.mark.parametrize(
    ("depth", "published"),
    # The paper's table 2 in full; the counts to the last digit are torchvision's.
    [(11, 132_863_336), (13, 133_047_848), (16, 138_357_544), (19, 143_667_240)],
)
def test_parameters_of_the_paper(depth, published):
    model = VGG(1000, depth=depth, norm=NORMS["none"], hidden=(4096, 4096))
    assert parameters(model, 224) == published


def test_parameters_of_the_cifar_variant():
    assert parameters(VGG(10), 32) == 14_728_266


def test_width_multiplier_scales_every_width_but_the_last():
    model = VGG(10, width_multiplier=0.5, hidden=(64,))
    init = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 32, 32, 3)), train=False), jax.random.key(0)
    )
    widths = [
        leaf.shape[-1] for path, leaf in tree.flatten(init["params"]).items() if "kernel" in path
    ]
    assert sorted(widths) == sorted([32, 32, 64, 64, *[128] * 3, *[256] * 6, 32, 10])


@pytest.mark.parametrize(("norm", "dtype"), [("batch", "float32"), ("none", "bfloat16")])
def test_shapes_dtypes_and_collections(norm, dtype):
    model = VGG(
        7, depth=11, norm=NORMS[norm], hidden=(200,), width_multiplier=0.1,
        dtype=jnp.dtype(dtype),
    )  # fmt: skip
    x = jax.random.normal(jax.random.key(2), (4, 48, 33, 1))
    variables = jax.jit(lambda: model.init(jax.random.key(0), x, train=False))()
    assert ("batch_stats" in variables) == (norm == "batch")
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    apply = jax.jit(
        lambda v, key: model.apply(v, x, train=True, mutable=["batch_stats"], rngs={"dropout": key})
    )
    logits, _ = apply(variables, jax.random.key(0))
    assert logits.shape == (4, 7)
    assert logits.dtype == jnp.float32
    assert not jnp.array_equal(logits, apply(variables, jax.random.key(1))[0])  # dropout
    still = jax.jit(lambda v: model.apply(v, x, train=False))
    assert jnp.array_equal(still(variables), still(variables))
