"""Every loss against its definition in float64, its gradient against differences, its extremes."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl import losses


def log_softmax(x):
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def one_vs_rest(z, t):
    p = 1 / (1 + np.exp(-z))
    return -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(-1)


def cosine(u, v):
    return (u * v).sum(-1) / np.sqrt((u**2).sum(-1) * (v**2).sum(-1))


# (outputs [B, C], targets [B, C]) -> [B], as the definitions have it, in float64.
DEFINITIONS = {
    "cross_entropy": lambda z, t: -(t * log_softmax(z)).sum(-1),
    "binary_cross_entropy": one_vs_rest,
    "negative_log_likelihood": lambda z, t: -(t * z).sum(-1),
    "kl_divergence": lambda z, t: (
        (t * np.log(np.where(t > 0, t, 1))).sum(-1) - (t * log_softmax(z)).sum(-1)
    ),
    "hinge": lambda z, t: np.array(
        [
            max(s + 1 - w for s, w in zip(row, of, strict=True)) - row @ of
            for row, of in zip(z, t, strict=True)
        ]
    ),
    "focal": lambda z, t: -(t * (1 - np.exp(log_softmax(z))) ** 2 * log_softmax(z)).sum(-1),
    "squared_error": lambda y, t: ((y - t) ** 2).mean(-1),
    "absolute_error": lambda y, t: np.abs(y - t).mean(-1),
    "huber": lambda y, t: np.where(np.abs(y - t) <= 1, (y - t) ** 2 / 2, np.abs(y - t) - 0.5).mean(
        -1
    ),
    "log_cosh": lambda y, t: np.log(np.cosh(y - t)).mean(-1),
    "cosine_distance": lambda y, t: 1 - cosine(y, t),
    "angular_distance": lambda y, t: np.arccos(cosine(y, t)) / np.pi,
}
PROBABILITIES = {*losses.CLASSIFICATION, "negative_log_likelihood"}  # what their targets are


def drawn(name, seed, b, c):
    random = np.random.RandomState(seed)
    outputs = random.normal(0, 2, (b, c))
    outputs = log_softmax(outputs) if name == "negative_log_likelihood" else outputs
    if name in PROBABILITIES:
        return outputs, random.dirichlet(np.ones(c), b)
    return outputs, random.normal(0, 2, (b, c))


def test_every_loss_has_a_definition_here():
    assert DEFINITIONS.keys() == losses.LOSSES.keys()


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_is_its_definition(name):
    for seed, (b, c) in enumerate([(1, 2), (5, 3), (2, 9)]):
        outputs, targets = drawn(name, seed, b, c)
        found = losses.LOSSES[name](
            jnp.asarray(outputs, "float32"), jnp.asarray(targets, "float32")
        )
        assert found.shape == (b,)
        np.testing.assert_allclose(found, DEFINITIONS[name](outputs, targets), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_gradient_is_that_of_finite_differences(name):
    outputs, targets = drawn(name, 7, 2, 3)
    with jax.enable_x64(True):
        t = jnp.asarray(targets)
        gradient = jax.grad(lambda y: losses.LOSSES[name](y, t).sum())(jnp.asarray(outputs))
    assert gradient.dtype == np.float64
    for place in np.ndindex(outputs.shape):
        step = np.zeros_like(outputs)
        step[place] = 1e-5
        above, below = (DEFINITIONS[name](outputs + s, targets).sum() for s in (step, -step))
        assert gradient[place] == pytest.approx((above - below) / 2e-5, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_extremes_stay_finite_in_value_and_gradient(name, dtype):
    outputs = jnp.asarray([[1e4, -1e4, 0], [0, 0, 0], [-1e4, -1e4, 1e4], [1e4, 1e4, 1e4]], dtype)
    for target in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0.5, 0.5], [0, 0, 0]):
        if name in PROBABILITIES and sum(target) == 0:
            continue
        targets = jnp.tile(jnp.asarray([target], jnp.float32), (4, 1))
        value, gradient = jax.value_and_grad(lambda y, t=targets: losses.LOSSES[name](y, t).sum())(
            outputs
        )
        assert value.dtype == jnp.float32
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("name", sorted(PROBABILITIES))
def test_class_indices_mean_certainty(name):
    outputs, _ = drawn(name, 1, 4, 3)
    outputs, labels = jnp.asarray(outputs, "float32"), jnp.asarray([2, 0, 1, 1])
    loss = losses.LOSSES[name]
    certain = loss(outputs, jax.nn.one_hot(labels, 3))
    np.testing.assert_allclose(loss(outputs, labels), certain, rtol=1e-6, atol=1e-6)


def test_class_indices_at_extremes_with_smoothing():
    outputs = jnp.asarray([[1e18, -1e18, 0], [0, 0, 0], [-1e18, 1e4, 1e4]], jnp.float32)
    for labels in ([0, 0, 0], [1, 1, 1], [2, 2, 2]):

        def total(y, labels=labels):
            return losses.cross_entropy(y, jnp.asarray(labels), 0.1).sum()

        value, gradient = jax.value_and_grad(total)(outputs)
        assert jnp.isfinite(value)
        np.testing.assert_allclose(gradient.sum(axis=-1), 0, atol=1e-6)


@settings(max_examples=15)
@given(c=st.integers(2, 9), share=st.floats(0, 1, width=32), seed=st.integers(0, 99))
def test_label_smoothing_spreads_a_share_evenly(c, share, seed):
    random = np.random.RandomState(seed)
    logits, labels = random.normal(0, 5, (6, c)), random.randint(0, c, 6)
    targets = (1 - share) * np.eye(c)[labels] + share / c
    found = losses.cross_entropy(jnp.asarray(logits, "float32"), jnp.asarray(labels), share)
    wanted = DEFINITIONS["cross_entropy"](logits, targets)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def test_one_sigmoid():
    logits, labels = np.array([-3.0, 0.5, 2.0]), np.array([0, 1, 0])
    found = losses.binary_cross_entropy(jnp.asarray(logits, "float32"), jnp.asarray(labels))
    wanted = one_vs_rest(logits[:, None], labels[:, None])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_focal_without_focus_is_cross_entropy_and_gamma_may_be_traced():
    outputs, targets = (jnp.asarray(a, "float32") for a in drawn("focal", 0, 3, 4))
    plain = losses.cross_entropy(outputs, targets)
    both = jax.vmap(lambda g: losses.focal(outputs, targets, g))(jnp.asarray([0.0, 2.0]))
    np.testing.assert_allclose(both[0], plain, rtol=1e-6)
    assert (both[1] < plain).all()


def test_the_angle_keeps_its_digits_where_vectors_are_parallel():
    u, v = jnp.asarray([[1.0, 0.0]]), jnp.asarray([[1.0, 1e-5]])
    assert float(losses.angular_distance(u, v)[0]) == pytest.approx(1e-5 / np.pi, rel=1e-5)
    assert float(losses.angular_distance(u, -u)[0]) == pytest.approx(1)


def test_an_exact_prediction_pulls_nowhere():
    for name in losses.REGRESSION:
        pull = jax.grad(lambda y, name=name: losses.LOSSES[name](y, jnp.ones(3)).sum())(jnp.ones(3))
        assert not pull.any()


def test_small_errors_keep_their_digits():
    errors = jnp.asarray([1e-6, 1e-4, 1e-3, 0.1])
    wanted = np.asarray(errors, np.float64) ** 2 / 2
    found = losses.log_cosh(errors, jnp.zeros(4))
    np.testing.assert_allclose(found[:3], wanted[:3], rtol=1e-5)
    assert (found > 0).all()


def test_the_impossible_that_was_not_the_label_costs_nothing():
    log_p = jnp.asarray([[0.0, -jnp.inf]])
    assert float(losses.negative_log_likelihood(log_p, jnp.asarray([0]))[0]) == 0


def test_a_label_that_is_no_class_has_no_loss():
    logits = jnp.zeros((4, 3))
    found = losses.cross_entropy(logits, jnp.array([0, 2, 3, -1]))
    np.testing.assert_allclose(found, [np.log(3), np.log(3), np.nan, np.nan], rtol=1e-6)
