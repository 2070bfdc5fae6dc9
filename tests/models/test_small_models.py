"""LeNet-5, the small CNN and the perceptron: published sizes, shapes, and learning by heart."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl.data import image_sources
from jaxdl.models import resnet
from jaxdl.models.cnn import CNN
from jaxdl.models.lenet import LeNet5
from jaxdl.models.mlp import MLP
from jaxdl.models.resnet import ResNet
from jaxdl.models.vgg import VGG
from jaxdl.nn.activations import ACTIVATIONS
from jaxdl.nn.norm import NORMS
from jaxdl.nn.pooling import POOLS


def parameters(model, *shape):
    init = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False)
    )
    return sum(leaf.size for leaf in jax.tree.leaves(init["params"]))


def test_lenet_has_its_61706_parameters():
    assert parameters(LeNet5(10), 28, 28, 1) == 61_706


def test_the_small_cnn():
    convolutions = (9 + 1) * 16 + (9 * 16 + 1) * 32
    assert parameters(CNN(10), 28, 28, 1) == convolutions + (7 * 7 * 32 + 1) * 128 + 129 * 10


def test_the_perceptron_is_its_formula():
    model = MLP(2, (3,), ACTIVATIONS["tanh"])
    x = np.random.RandomState(0).normal(size=(4, 5)).astype(np.float32)
    variables = model.init(jax.random.key(0), jnp.asarray(x), train=False)
    (w, b), (v, c) = (
        (np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"], np.float64))
        for layer in (variables["params"]["Dense_0"], variables["params"]["Dense_1"])
    )
    found = model.apply(variables, jnp.asarray(x), train=False)
    np.testing.assert_allclose(found, np.tanh(x @ w + b) @ v + c, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [LeNet5, CNN])
@pytest.mark.parametrize("pool", POOLS)
def test_every_pooling_fits(make, pool):
    model = make(7, pool=POOLS[pool])
    x = jnp.zeros((2, 13, 15, 3))
    out = jax.eval_shape(
        lambda: model.apply(model.init(jax.random.key(0), x, train=False), x, train=False)
    )
    assert out.shape == (2, 7)


FAMILIES = {
    "mlp": MLP(10, (64,)),
    "lenet": LeNet5(10),
    "cnn": CNN(10, norm=NORMS["layer"]),
    "vgg": VGG(10, depth=11, dropout=0.0, width_multiplier=0.1),
    "resnet": ResNet(10, stem="cifar", norm=NORMS["group"], width_multiplier=0.125),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_overfits_32_examples(family, monkeypatch):
    monkeypatch.setattr(resnet, "BLOCKS", {18: (1, 1, 1, 1)})  # compiles in a third of the time
    model = FAMILIES[family]
    size = 32 if family == "vgg" else 12
    raw = image_sources.synthetic(size, examples=32)
    x = jnp.asarray(raw.train["image"], jnp.float32) / 128 - 1
    # The classes are easy: labels by chance are to be learnt by heart.
    label = jnp.asarray(np.random.RandomState(0).randint(0, 10, 32))
    variables = dict(jax.jit(lambda: model.init(jax.random.key(0), x, train=False))())
    params, optimizer = variables.pop("params"), optax.adam(2e-3)

    @jax.jit
    def step(params, state, variables):
        def loss(params):
            logits, new = model.apply(
                {"params": params, **variables}, x, train=True, mutable=list(variables)
            )
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, label).mean(), new

        (value, new), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, dict(new), value

    state = optimizer.init(params)
    for _ in range(400):
        params, state, variables, value = step(params, state, variables)
        if value < 0.01:
            break
    assert value < 0.01


@pytest.mark.parametrize(
    ("model", "options"), [(VGG, {"depth": 11}), (ResNet, {"stem": "imagenet"})]
)
def test_remat_changes_neither_parameters_nor_gradients(model, options, monkeypatch):
    monkeypatch.setitem(resnet.BLOCKS, 18, (1, 1, 1, 1))
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    results = []
    for remat in (False, True):
        net = model(10, width_multiplier=0.05, remat=remat, **options)
        variables = jax.jit(partial(net.init, train=False))(jax.random.key(1), x)

        def loss(params, net=net, rest=variables):
            y, _ = net.apply(
                rest | {"params": params}, x, train=True, mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(2)},
            )  # fmt: skip
            return jnp.sum(jnp.square(y))

        results.append((variables, jax.jit(jax.grad(loss))(variables["params"])))
        kept = str(jax.make_jaxpr(jax.grad(loss))(variables["params"])).count("remat")
        assert bool(kept) == remat
    (plain, one), (again, other) = results
    jax.tree.map(np.testing.assert_array_equal, plain, again)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), one, other)
