import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import losses
from jaxdl.models import vae
from jaxdl.models.vae import VAE


def test_divergence_against_an_integral():
    random = np.random.RandomState(0)
    mean, log_variance = random.randn(2, 6, 3)
    z = np.linspace(-30, 30, 200_001)
    wanted = np.zeros(6)
    for b in range(6):
        for m, v in zip(mean[b], np.exp(log_variance[b]), strict=True):
            log_q = -0.5 * ((z - m) ** 2 / v + np.log(2 * np.pi * v))
            log_p = -0.5 * (z**2 + np.log(2 * np.pi))
            wanted[b] += np.trapezoid(np.exp(log_q) * (log_q - log_p), z)
    found = losses.normal_divergence(jnp.asarray(mean), jnp.asarray(log_variance))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_the_reparameterised_gradient_against_a_closed_form():
    """Gradient of E[(z - a)**2], z = m + s * noise: 2 (m - a) by m, s**2 by log variance."""
    m, log_variance, a = 0.7, -0.4, 0.2
    noise = jax.random.normal(jax.random.key(0), (400_000,))

    def objective(m, log_variance):
        return jnp.mean((vae.reparameterize(m, log_variance, noise) - a) ** 2)

    found = jax.grad(objective, argnums=(0, 1))(m, log_variance)
    assert float(found[0]) == pytest.approx(2 * (m - a), rel=0.01)
    assert float(found[1]) == pytest.approx(np.exp(log_variance), rel=0.01)


@pytest.fixture(scope="module")
def small():
    model = VAE((4, 4, 1), 2, (8,))
    x = jax.random.uniform(jax.random.key(0), (3, 4, 4, 1))
    inputs = x, jnp.zeros((3, 2))
    variables = jax.jit(lambda: model.init(jax.random.key(1), inputs, train=False))()
    params = variables["params"]
    return model, params, x


def test_both_bounds_are_below_the_evidence_and_the_tighter_is_near(small):
    model, params, x = small
    # The evidence by an integral over a grid of latents.
    side = np.linspace(-5, 5, 101)
    grid = jnp.asarray(np.stack(np.meshgrid(side, side), -1).reshape(-1, 2), jnp.float32)
    logits = model.apply({"params": params}, grid, method="decode")[:, None]
    log_p = jnp.sum(x[None] * logits - jnp.logaddexp(logits, 0), axis=(2, 3, 4))  # [Z, B]
    prior = -0.5 * jnp.sum(grid**2, axis=-1) - jnp.log(2 * jnp.pi)
    evidence = jax.nn.logsumexp(log_p + prior[:, None], axis=0) + 2 * jnp.log(0.1)
    draws = jax.random.normal(jax.random.key(2), (20_000, 3, 2))

    def once(noise):
        drawn = model.apply({"params": params}, (x, noise), train=False)
        return *vae.elbo_terms(drawn, x), vae.log_weight(drawn, x, noise)

    reconstruction, divergence, weights = jax.jit(jax.vmap(once))(draws)
    bound = -jnp.mean(reconstruction + divergence, axis=0)
    tight = jax.nn.logsumexp(weights, axis=0) - jnp.log(len(draws))
    np.testing.assert_allclose(tight, evidence, atol=0.02)
    assert np.all(bound < tight)
    # Both ways to write the lower bound have one mean.
    np.testing.assert_allclose(jnp.mean(weights, axis=0), bound, atol=0.05)
