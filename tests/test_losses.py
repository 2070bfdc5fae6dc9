import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl import losses


def reference(logits, targets):
    """-sum p log softmax, in float64, with the largest logit taken out by hand."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -(targets * log_p).sum(-1)


@settings(max_examples=25, deadline=None)
@given(
    b=st.integers(1, 6),
    c=st.integers(2, 9),
    smoothing=st.floats(0, 1, width=32),
    seed=st.integers(0, 99),
)
def test_cross_entropy_is_its_definition(b, c, smoothing, seed):
    random = np.random.RandomState(seed)
    logits = random.normal(0, 5, (b, c)).astype(np.float32)
    labels = random.randint(0, c, b)
    targets = (1 - smoothing) * np.eye(c)[labels] + smoothing / c
    found = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing)
    assert found.shape == (b,)
    np.testing.assert_allclose(found, reference(logits, targets), rtol=2e-5, atol=2e-5)


def test_probabilities_as_labels():
    random = np.random.RandomState(0)
    logits = random.normal(0, 2, (4, 3)).astype(np.float32)
    targets = random.dirichlet(np.ones(3), 4)
    found = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(targets, jnp.float32))
    np.testing.assert_allclose(found, reference(logits, targets), rtol=1e-5)


def test_gradient_is_softmax_minus_target():
    logits = jnp.asarray([[1.0, -2.0, 0.5]])
    gradient = jax.grad(lambda x: losses.cross_entropy(x, jnp.asarray([2])).sum())(logits)
    np.testing.assert_allclose(
        gradient, jax.nn.softmax(logits) - jnp.eye(3)[jnp.asarray([2])], 1e-6
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_extreme_logits_stay_finite(dtype, smoothing):
    logits = jnp.asarray([[1e4, -1e4, 0.0]], dtype)
    for label in range(3):
        value, gradient = jax.value_and_grad(
            lambda x, label=label: losses.cross_entropy(x, jnp.asarray([label]), smoothing).sum()
        )(logits)
        assert value.dtype == jnp.float32
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient).all()
