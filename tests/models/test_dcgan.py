import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl import losses
from jaxdl.models.dcgan import Discriminator, Generator
from jaxdl.nn.conv import ConvTranspose


@settings(max_examples=8)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 1000),
)
def test_transposed_convolution_is_flaxs(size, channels, seed):
    inputs, outputs = channels
    x = jax.random.normal(jax.random.key(seed), (*size, inputs))
    own = ConvTranspose(outputs)
    theirs = nn.ConvTranspose(outputs, (4, 4), (2, 2), padding="SAME")
    variables = jax.jit(theirs.init)(jax.random.key(1), x)
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(own.init, jax.random.key(1), x))
    assert shapes == jax.tree.map(jnp.shape, variables)
    shape = jax.eval_shape(theirs.apply, variables, x).shape
    weights = jax.random.normal(jax.random.key(2), shape)

    def gradients(module):
        value = lambda v, x: jnp.sum(module.apply(v, x) * weights)  # noqa: E731
        return jax.jit(jax.value_and_grad(value, argnums=(0, 1)))(variables, x)

    for a, b in zip(
        jax.tree.leaves(gradients(own)), jax.tree.leaves(gradients(theirs)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_images_and_judgements_have_their_shapes():
    made, told = Generator(12, 3, 4), Discriminator(4)
    z = jax.random.normal(jax.random.key(0), (5, 7))
    variables = jax.jit(made.init, static_argnames="train")(jax.random.key(1), z, train=False)
    x = jax.jit(made.apply, static_argnames="train")(variables, z, train=False)
    assert x.shape == (5, 12, 12, 3)
    assert float(jnp.max(jnp.abs(x))) <= 1
    logits, _ = jax.jit(told.init_with_output, static_argnames="train")(
        jax.random.key(2), x, train=False
    )
    assert logits.shape == (5,)
    assert logits.dtype == jnp.float32


@pytest.fixture(scope="module")
def critic():
    told = Discriminator(2, 6)
    x = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    variables = told.init(jax.random.key(1), x, train=False)
    variables = jax.tree.map(lambda a: 20 * a, variables)
    return jax.jit(lambda v, x: told.apply(v, x, train=False)), variables, x


def test_the_penalty_is_of_each_images_own_slope(critic):
    apply, variables, x = critic
    found = jax.jit(lambda x: losses.gradient_penalty(lambda x: apply(variables, x), x))(x)
    slope_at = jax.jit(jax.grad(lambda one: apply(variables, one[None])[0]))
    for n in range(len(x)):
        slope = slope_at(x[n])
        wanted = (np.linalg.norm(np.asarray(slope, np.float64)) - 1) ** 2
        assert float(found[n]) == pytest.approx(wanted, rel=1e-4)


def test_the_penaltys_gradient_is_its_finite_difference(critic):
    apply, variables, x = critic

    def penalty(v):
        return jnp.mean(losses.gradient_penalty(lambda x: apply(v, x), x))

    penalty = jax.jit(penalty)
    gradient = jax.jit(jax.grad(penalty))(variables)
    for seed in range(3):
        keys = iter(jax.random.split(jax.random.key(seed), 20))
        along = jax.tree.map(lambda a: jax.random.normal(next(keys), a.shape), variables)  # noqa: B023
        size = 1e-3
        ends = [
            float(penalty(jax.tree.map(lambda a, d: a + s * size * d, variables, along)))  # noqa: B023
            for s in (1, -1)
        ]
        slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, along)))
        assert (ends[0] - ends[1]) / (2 * size) == pytest.approx(float(slope), rel=0.02)


def test_a_flat_critic_has_a_finite_gradient():
    def penalty(w):
        return jnp.sum(
            losses.gradient_penalty(
                lambda x: w * jnp.sum(x, axis=(1, 2, 3)), jnp.ones((2, 4, 4, 1))
            )
        )

    assert float(penalty(0.0)) == pytest.approx(2.0)
    assert np.isfinite(jax.grad(penalty)(0.0))


@pytest.mark.parametrize("kind", losses.ADVERSARIAL)
def test_adversarial_losses_against_their_formulas(kind):
    real, made = np.random.RandomState(0).randn(2, 50) * 3
    loss = losses.ADVERSARIAL[kind]
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    wanted = {
        "non_saturating": (
            -np.log(sigmoid(real)) - np.log(1 - sigmoid(made)),
            -np.log(sigmoid(made)),
        ),
        "hinge": (np.maximum(0, 1 - real) + np.maximum(0, 1 + made), -made),
        "wasserstein": (made - real, -made),
    }[kind]
    np.testing.assert_allclose(
        loss.discriminator(jnp.asarray(real), jnp.asarray(made)), wanted[0], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(loss.generator(jnp.asarray(made)), wanted[1], rtol=1e-4, atol=1e-5)
