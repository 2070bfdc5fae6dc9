"""Monte Carlo dropout and scores of foreign examples, against NumPy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy.spatial import distance
from sklearn.metrics import roc_auc_score

from jaxdl.analysis import monte_carlo, out_of_distribution
from jaxdl.errors import UserError
from jaxdl.models.mlp import MLP
from jaxdl.nn.interception import active_dropout, replaced
from jaxdl.nn.norm import NORMS
from jaxdl.task import Predict


def predictor(dropout, norm="none"):
    model = MLP(hidden=(64,), outputs=3, dropout=dropout, norm=NORMS[norm])
    x = jnp.asarray(np.random.RandomState(0).normal(size=(5, 4)), jnp.float32)
    state = model.init(jax.random.key(0), x, train=False)
    apply = lambda state, x, **options: model.apply(state, x, train=False, **options)  # noqa: E731
    return Predict(lambda batch: batch["x"], apply, kind="logits"), state, x


def test_dropout_has_the_mean_of_the_model_and_the_variance_of_its_masks():
    """The output is linear in the dropped layer, so both have a closed form."""
    predict, state, x = predictor(0.3)
    found = monte_carlo.samples(predict, state, x, jax.random.key(1), 4000)
    assert found.shape == (4000, 5, 3)
    features = predict.features(state, x)
    hidden = np.maximum(features["Dense_0"], 0)
    kernel = state["params"]["Dense_1"]["kernel"]
    variance = 0.3 / 0.7 * np.square(hidden) @ np.square(kernel)
    np.testing.assert_allclose(found.mean(axis=0), features[""], atol=0.05)
    np.testing.assert_allclose(found.var(axis=0), variance, rtol=0.15)


def test_dropout_of_rate_zero_changes_nothing():
    predict, state, x = predictor(0.0)
    found = monte_carlo.samples(predict, state, x, jax.random.key(1), 2)
    np.testing.assert_array_equal(found[0], found[1])


def test_normalisation_stays_in_evaluation_mode():
    predict, state, x = predictor(0.3, "batch")
    running = jax.tree.map(lambda leaf: leaf + 0.5, state["batch_stats"])
    state = {**state, "batch_stats": running}
    found = monte_carlo.samples(predict, state, x, jax.random.key(1), 4000)
    np.testing.assert_allclose(found.mean(axis=0), predict.of_inputs(state, x), atol=0.05)


def test_outside_of_the_context_nothing_has_changed():
    predict, state, x = predictor(0.5)
    before = predict.of_inputs(state, x)
    with active_dropout():
        pass
    np.testing.assert_array_equal(predict.of_inputs(state, x), before)


def test_a_replaced_layer_and_one_that_is_not_there():
    predict, state, x = predictor(0.0)
    with replaced("Dense_0", lambda y: jnp.zeros_like(y)):
        found = predict.of_inputs(state, x)
    np.testing.assert_allclose(found, np.tile(state["params"]["Dense_1"]["bias"], (5, 1)))
    with pytest.raises(UserError, match="no layer 'Dense_7'"), replaced("Dense_7", lambda y: y):
        predict.of_inputs(state, x)


def test_uncertainty_is_that_of_a_loop():
    logits = np.random.default_rng(0).normal(size=(4, 6, 3))
    found = monte_carlo.uncertainty(logits)
    p = special.softmax(logits, axis=2)
    np.testing.assert_allclose(np.exp(found.log_p), p.mean(axis=0))
    for n in range(6):
        entropy = special.entr(p.mean(axis=0)[n]).sum()
        within = np.mean([special.entr(p[s, n]).sum() for s in range(4)])
        assert found.entropy[n] == pytest.approx(entropy)
        assert found.information[n] == pytest.approx(entropy - within)
    assert np.all(found.information >= 0)


def test_energy_and_probability_are_scipys():
    logits = np.random.default_rng(0).normal(size=(8, 4))
    np.testing.assert_allclose(
        out_of_distribution.energy(logits), -special.logsumexp(logits, axis=1)
    )
    np.testing.assert_allclose(
        out_of_distribution.improbability(logits), 1 - special.softmax(logits, axis=1).max(axis=1)
    )


@pytest.mark.parametrize("count", [5, 60])
def test_distances_are_scipys(count):
    """With fewer features than examples, and with more."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 3], 20)
    features = random.normal(size=(40, count)) @ random.normal(size=(count, count))
    features += labels[:, None]
    means = [features[labels == k].mean(axis=0) for k in (0, 3)]
    centred = np.concatenate([features[:20] - means[0], features[20:] - means[1]])
    inverse = np.linalg.pinv(centred.T @ centred / 40, rcond=1e-9, hermitian=True)
    fitted = out_of_distribution.fit_gaussians(features, labels)
    found = out_of_distribution.mahalanobis(fitted, features[::9])
    for value, row in zip(found, features[::9], strict=True):
        wanted = min(distance.mahalanobis(row, mean, inverse) ** 2 for mean in means)
        assert value == pytest.approx(wanted, rel=1e-6)


def test_more_features_than_a_covariance_has_room_for():
    features = np.random.default_rng(0).normal(size=(6, 1_000_000))  # squared: 8 TB
    fitted = out_of_distribution.fit_gaussians(features, np.arange(6) % 2)
    assert fitted.whitening.shape == (1_000_000, 6)
    assert np.all(np.isfinite(out_of_distribution.mahalanobis(fitted, features)))


def test_features_that_never_vary_do_not_count():
    random = np.random.default_rng(0)
    features = random.normal(size=(100, 3))
    padded = np.concatenate([features, np.ones((100, 2))], axis=1)
    labels = np.arange(100) % 2
    found, wanted = (
        out_of_distribution.mahalanobis(out_of_distribution.fit_gaussians(x, labels), x)
        for x in (padded, features)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_auroc_is_the_share_of_pairs():
    inside, outside = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0])
    pairs = [(o > i) + 0.5 * (o == i) for i in inside for o in outside]
    assert out_of_distribution.auroc(inside, outside) == pytest.approx(np.mean(pairs))
    random = np.random.default_rng(0)
    inside, outside = random.normal(size=200), random.normal(size=100).round(1)
    labels = np.repeat([0, 1], [200, 100])
    wanted = roc_auc_score(labels, np.concatenate([inside, outside]))
    assert out_of_distribution.auroc(inside, outside) == pytest.approx(wanted, rel=1e-12)
