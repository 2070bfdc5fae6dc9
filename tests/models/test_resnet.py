import jax
import jax.numpy as jnp
import pytest

from jaxdl.models import resnet
from jaxdl.models.resnet import ResNet


def shapes(model, size=32):
    x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), x)


def parameters(model, size=32):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(model, size)["params"]))


# Counts as torchvision publishes them for the paper's table 1, at 1,000 classes.
@pytest.mark.parametrize(
    ("depth", "published"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)]
)
def test_parameters_are_the_published_ones(depth, published):
    assert parameters(ResNet(1000, depth=depth), 224) == published


# As a much used implementation (kuangliu/pytorch-cifar) has them; its second one lacks the last
# normalisation, of 2 x 512.
@pytest.mark.parametrize(
    ("pre_activation", "count"), [(False, 11_173_962), (True, 11_171_146 + 1024)]
)
def test_parameters_of_the_cifar_variants(pre_activation, count):
    assert parameters(ResNet(10, stem="cifar", pre_activation=pre_activation)) == count


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_sizes_of_the_stages(stem):
    model = ResNet(10, stem=stem, width_multiplier=0.05)
    x = jnp.zeros((1, 64, 64, 3))

    def captured():
        return model.apply(
            model.init(jax.random.key(0), x, train=False), x, train=False,
            capture_intermediates=lambda module, name: type(module).__name__ == "Conv",
            mutable=["intermediates"],
        )  # fmt: skip

    _, state = jax.eval_shape(captured)
    sizes = {leaf.shape[1] for leaf in jax.tree.leaves(state["intermediates"])}
    wanted = {64, 32, 16, 8} if stem == "cifar" else {32, 16, 8, 4, 2}  # 32: before the pooling
    assert sizes == wanted


@pytest.mark.parametrize(("depth", "pre_activation"), [(18, False), (50, True)])
def test_stochastic_depth_drops_branches_in_training_alone(depth, pre_activation, monkeypatch):
    monkeypatch.setattr(resnet, "BLOCKS", {depth: (1, 1, 1, 1)})  # compiles in a third of the time
    model = ResNet(
        5, depth=depth, stem="cifar", pre_activation=pre_activation, stochastic_depth=0.5,
        width_multiplier=0.05,
    )  # fmt: skip
    x = jax.random.normal(jax.random.key(2), (4, 8, 8, 1))
    variables = jax.jit(lambda: model.init(jax.random.key(0), x, train=False))()
    train = jax.jit(
        lambda key: model.apply(
            variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )[0]
    )
    first = train(jax.random.key(0))
    assert first.shape == (4, 5)
    assert first.dtype == jnp.float32
    assert jnp.array_equal(first, train(jax.random.key(0)))
    assert not jnp.array_equal(first, train(jax.random.key(1)))
