import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models.airbench import Airbench
from jaxdl.models.resnet import ResNet
from jaxdl.models.transformer_lm import LanguageModel
from jaxdl.models.vgg import VGG
from jaxdl.models.vit import ViT
from jaxdl.nn.norm import NORMS, BatchNorm, Over, normalize

X = np.random.RandomState(0).normal(2, 3, (5, 4, 4, 12)).astype(np.float32)


class Layer(nn.Module):
    name_of: str

    @nn.compact
    def __call__(self, x, train):
        return NORMS[self.name_of](x, train, x.dtype)


def standardized(x, axes):
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def applied(name, x, train, state=None):
    layer = Layer(name)
    variables = layer.init(jax.random.key(0), x, False)
    return layer.apply(variables | (state or {}), x, train, mutable=["batch_stats"])


def groups(x, count):
    return x.reshape(*x.shape[:-1], count, -1)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("batch", standardized(X, (0, 1, 2))),
        ("layer", standardized(X, -1)),
        ("group", standardized(groups(X, 4), (1, 2, 4)).reshape(X.shape)),  # gcd(12, 32) of them
        ("none", X),
    ],
)
def test_is_its_definition(name, wanted):
    found, _ = applied(name, jnp.asarray(X), train=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


FAR = 4000 + np.random.RandomState(1).normal(size=(16, 16, 16, 12)).astype(np.float32)
FAR_WANTED = {
    "batch": standardized(FAR, (0, 1, 2)),
    "layer": standardized(FAR, -1),
    "group": standardized(groups(FAR, 4), (1, 2, 4)).reshape(FAR.shape),
}


@pytest.mark.parametrize("name", FAR_WANTED)
@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 2e-3), (jnp.bfloat16, 0.02)])
def test_a_mean_of_thousands_of_deviations_costs_no_variance(name, dtype, atol):
    class To(nn.Module):
        @nn.compact
        def __call__(self, x):
            return NORMS[name](x, True, dtype)

    found, _ = To().init_with_output(jax.random.key(0), jnp.asarray(FAR))
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found, np.float64), FAR_WANTED[name], atol=atol)


def test_values_in_bfloat16_are_normalised_in_float32():
    x = jnp.asarray(FAR[..., :3] - 3900, jnp.bfloat16)
    wanted = standardized(np.asarray(x, np.float64), (0, 1, 2))
    found, _ = applied("batch", x, train=True)
    np.testing.assert_allclose(np.asarray(found, np.float64), wanted, atol=0.02)


@pytest.mark.parametrize("name", ["batch", "layer", "group"])
def test_gradients_far_from_0_are_those_near_it(name):
    near = (FAR[:4, :3, :3] - 4000).astype(np.float32)
    by = np.random.RandomState(2).normal(size=near.shape).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(applied(name, x, train=True)[0] * by)))
    far = jnp.asarray(near) + 4000
    np.testing.assert_allclose(gradient(far), gradient(far - 4000), atol=5e-3)


@pytest.mark.parametrize("name", ["batch", "group"])
def test_second_derivatives_are_those_of_the_definition(name):
    with jax.enable_x64(True):
        x, by = np.random.RandomState(3).normal(size=(2, 3, 2, 4))
        axes, shape = {"batch": ((0, 1), (3, 2, 4)), "group": ((1, 3), (3, 2, 4, 1))}[name]

        def plain(x):
            x = x.reshape(shape)
            y = (x - x.mean(axes, keepdims=True)) / jnp.sqrt(x.var(axes, keepdims=True) + 1e-5)
            return jnp.sum(y.reshape(by.shape) * by)

        ours = jax.jit(jax.hessian(lambda x: jnp.sum(applied(name, x, train=True)[0] * by)))(x)
        np.testing.assert_allclose(ours, jax.hessian(plain)(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("axes", [(0, 1), (1, 3)])
def test_derivatives_of_all_operands_and_results(axes):
    """In both modes, and the product of the Hessian of a sum of all results with a direction."""
    with jax.enable_x64(True):
        random = np.random.RandomState(5)
        shape = (3, 4, 2, 5)
        kept = tuple(1 if n in axes else size for n, size in enumerate(shape))
        scale_shape = (1, 1, *shape[2:])
        where, v = (
            tuple(random.normal(size=s) for s in (shape, scale_shape, scale_shape))
            for _ in range(2)
        )
        weights = [random.normal(size=s) for s in (shape, kept, kept)]

        def plain(x, scale, bias):
            mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
            return (x - mean) / jnp.sqrt(var + 0.1) * scale + bias, mean, var

        def found_of(f):
            total = lambda *p: sum(  # noqa: E731
                jnp.sum(w * jnp.sin(a)) for w, a in zip(weights, f(*p), strict=True)
            )
            gradient = jax.grad(total, (0, 1, 2))
            return jax.jvp(f, where, v), gradient(*where), jax.jvp(gradient, where, v)

        ours = found_of(lambda *p: normalize(*p, Over(axes, 0.1)))
        for one, wanted in zip(
            jax.tree.leaves(ours), jax.tree.leaves(found_of(plain)), strict=True
        ):
            np.testing.assert_allclose(one, wanted, rtol=1e-6, atol=1e-9)


def running(batches, **options):
    """The statistics of a model's only batch norm after training on some batches."""
    layer = BatchNorm(**options)
    variables = layer.init(jax.random.key(0), batches[0], train=False)
    for x in batches:
        _, state = layer.apply(variables, x, train=True, mutable=["batch_stats"])
        variables = variables | state
    return variables


def test_running_statistics_are_averages_of_unbiased_ones_from_the_first_step_on():
    batches = np.random.RandomState(4).normal(50, 2, (200, 3, 2, 5)).astype(np.float32)
    mean = var = 0.0
    for step, x in enumerate(batches.astype(np.float64)):
        share = max(0.1, 20 / (20 + step))
        mean = mean + share * (x.mean((0, 1)) - mean)
        var = var + share * (x.var((0, 1), ddof=1) - var)
        if step in (0, 3, 199):
            stats = running(batches[: step + 1])["batch_stats"]
            np.testing.assert_allclose(stats["mean"], mean, rtol=1e-5)
            np.testing.assert_allclose(stats["var"], var, rtol=1e-4)


def test_evaluation_is_by_the_running_statistics():
    _, state = applied("batch", jnp.asarray(X), train=True)
    (stats,) = state["batch_stats"].values()
    found, _ = applied("batch", jnp.asarray(X), train=False, state=state)
    mean, var = (np.asarray(stats[key], np.float64) for key in ("mean", "var"))
    np.testing.assert_allclose(found, (X - mean) / np.sqrt(var + 1e-5), rtol=1e-4, atol=1e-4)


def test_one_value_a_channel_has_no_variance_and_is_finite():
    stats = running([np.full((1, 3), 7.0, np.float32)])["batch_stats"]
    np.testing.assert_array_equal(stats["mean"], 7)
    np.testing.assert_array_equal(stats["var"], 0)


def test_equal_values_far_from_0_have_no_negative_variance():
    x = np.full((7, 3, 3, 2), 33333333.0, np.float32)
    found, state = applied("batch", jnp.asarray(x), train=True)
    (stats,) = state["batch_stats"].values()
    assert np.isfinite(found).all()
    assert (np.asarray(stats["var"]) >= 0).all()


@pytest.mark.parametrize("name", ["group", "layer"])
def test_no_examples(name):
    found, _ = applied(name, jnp.zeros((0, 3, 3, 8)), train=True)
    assert found.shape == (0, 3, 3, 8)


def test_examples_of_all_devices_are_one_batch():
    x = FAR[:8].reshape(4, 2, *FAR.shape[1:])
    layer = BatchNorm(axis_name="data")
    variables = BatchNorm().init(jax.random.key(0), x[0], train=False)

    def of_device(x):
        return layer.apply(variables, x, train=True, mutable=["batch_stats"])

    found, state = jax.vmap(of_device, axis_name="data")(jnp.asarray(x))
    np.testing.assert_allclose(
        found.reshape(FAR[:8].shape), standardized(FAR[:8], (0, 1, 2)), atol=1e-3
    )
    whole = FAR[:8].astype(np.float64)
    for device in range(4):
        stats = jax.tree.map(lambda a: a[device], state["batch_stats"])  # noqa: B023
        np.testing.assert_allclose(stats["mean"], whole.mean((0, 1, 2)), rtol=1e-7)
        np.testing.assert_allclose(stats["var"], whole.var((0, 1, 2), ddof=1), rtol=1e-5)
    few = jax.vmap(of_device, axis_name="data")(jnp.asarray(x[:, :1, 0, 0]))[1]["batch_stats"]
    wanted = x[:, 0, 0, 0].astype(np.float64).var(0, ddof=1)  # of four values, one a device
    np.testing.assert_allclose(few["var"][0], wanted, rtol=1e-4)


IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), np.float32)
TOKENS = jax.ShapeDtypeStruct((2, 8), np.int32)
MODELS = {
    "vgg": (VGG(10, width_multiplier=0.02), IMAGES),
    "resnet": (ResNet(10, width_multiplier=0.02, norm=NORMS["group"]), IMAGES),
    "vit": (ViT(10, layers=1, features=8, hidden=8), IMAGES),
    "airbench": (Airbench(10, np.zeros((2, 2, 3, 24), np.float32), 0.02), IMAGES),
    "transformer": (LanguageModel(9, 1, 2, 8, 8, 8), TOKENS),
}


@pytest.mark.parametrize("name", MODELS)
def test_no_model_has_a_norm_that_subtracts_squares(name):
    model, x = MODELS[name]
    norms = []

    def note(call, args, kwargs, context):
        module = context.module
        if "Norm" in type(module).__name__:
            norms.append(getattr(module, "use_fast_variance", False))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), x)
    assert norms
    assert not any(norms)
