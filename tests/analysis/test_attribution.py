"""Attribution: closed forms of linear models, loops in NumPy, and every model of the zoo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.analysis import attribution, attribution_checks, layers
from jaxdl.analysis.guided import guided
from jaxdl.errors import UserError
from jaxdl.models.cnn import CNN
from jaxdl.models.lenet import LeNet5
from jaxdl.models.vit import ViT
from jaxdl.nn.pooling import POOLS
from jaxdl.task import Predict
from tests.models.zoo import CASES, OF_TOKENS, built, inputs, make_shallow, told

W = jnp.asarray(np.random.RandomState(0).normal(size=(4, 3)), jnp.float32)
X = jnp.asarray(np.random.RandomState(1).normal(size=(5, 4, 3)), jnp.float32)


def linear(x):
    return jnp.sum(x * W[None], axis=(1, 2)) + 0.5


def predictor(model, x):
    """A model as `Predict`, whose state is its variables."""
    variables = model.init(jax.random.key(0), x, train=False)
    apply = lambda state, x, **options: model.apply(state, x, train=False, **options)  # noqa: E731
    return Predict(lambda batch: batch["image"], apply, kind="logits"), variables


def small_cnn():
    x = jnp.asarray(np.random.RandomState(2).normal(size=(3, 8, 8, 1)), jnp.float32)
    model = CNN(3, channels=(2, 4), hidden=5, pool=POOLS["average"])
    return (*predictor(model, x), x)


def test_attributions_of_a_linear_score_are_its_weights():
    np.testing.assert_allclose(attribution.gradient(linear, X), jnp.tile(W, (5, 1, 1)))
    wanted = W[None] * (X - 0.25)
    found = attribution.gradient_x_input(linear, X, 0.25)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    integrated = attribution.integrated_gradients(linear, X, 0.25, steps=3)
    np.testing.assert_allclose(integrated.values, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(integrated.change, linear(X) - linear(0 * X + 0.25), rtol=1e-6)
    assert np.max(integrated.error) < 1e-5
    smooth = attribution.smooth_gradients(linear, X, jax.random.key(0), 1.0, 4)
    np.testing.assert_allclose(smooth.mean, jnp.tile(W, (5, 1, 1)), rtol=1e-6)
    np.testing.assert_allclose(smooth.variance, 0, atol=1e-12)
    masks = attribution.group_masks(np.arange(12).reshape(4, 3))
    found = attribution.ablation(linear, X, 0.25, masks)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_integrated_gradients_of_a_piecewise_linear_score():
    """The path from -x to x has its bend in the middle, between two steps."""
    score = lambda x: jnp.sum(jax.nn.relu(x) * W[None], axis=(1, 2))  # noqa: E731
    found = attribution.integrated_gradients(score, X, -X, steps=8)
    np.testing.assert_allclose(found.values, W[None] * X, rtol=1e-5)
    assert np.max(found.error) < 1e-5


def test_integrated_gradients_are_complete():
    predict, state, x = small_cnn()
    score = lambda x: predict.of_inputs(state, x)[:, 1]  # noqa: E731
    found = jax.jit(lambda x: attribution.integrated_gradients(score, x, 0.0, 128))(x)
    total = np.sum(found.values, axis=(1, 2, 3))
    np.testing.assert_allclose(total, found.change, rtol=0.01)
    assert np.max(found.error) < 0.01


def test_noisy_gradients_of_a_square():
    """The gradient 2 (x + noise) has the mean 2 x and the variance 4 deviation^2."""
    score = lambda x: jnp.sum(jnp.square(x), axis=(1, 2))  # noqa: E731
    found = attribution.smooth_gradients(score, X, jax.random.key(0), 0.5, 2000)
    np.testing.assert_allclose(found.mean, 2 * X, atol=0.15)
    np.testing.assert_allclose(found.variance, 1, rtol=0.2)


def test_grad_cam_by_hand():
    predict, state, x = small_cnn()
    activation, rest = layers.split_at(predict, state, x, "Conv_1")
    np.testing.assert_allclose(rest(activation), predict.of_inputs(state, x), rtol=1e-6)
    slope = jax.grad(lambda a: jnp.sum(rest(a)[:, 2]))(activation)
    found = attribution.grad_cam(activation, slope)
    a, g = np.asarray(activation), np.asarray(slope)
    wanted = np.zeros((3, 4, 4))
    for n in range(3):
        for k in range(4):
            wanted[n] += g[n, :, :, k].sum() / 16 * a[n, :, :, k]
    np.testing.assert_allclose(found, np.maximum(wanted, 0), rtol=1e-4, atol=1e-7)


def test_the_slope_of_a_layer_is_that_of_differences():
    predict, state, x = small_cnn()
    activation, rest = layers.split_at(predict, state, x, "Dense_0")
    slope = jax.grad(lambda a: jnp.sum(rest(a)[:, 0]))(activation)
    kernel = state["params"]["Dense_1"]["kernel"]
    np.testing.assert_allclose(slope, (activation > 0) * kernel[None, :, 0], rtol=1e-6)


def test_layers_come_in_the_order_of_their_calls():
    predict, state, x = small_cnn()
    found = layers.shapes(predict, state, x)
    assert list(found) == ["Conv_0", "Conv_1", "Dense_0", "Dropout_0", "Dense_1"]
    assert layers.spatial(found) == "Conv_1"
    assert layers.spatial(found, "Conv_0") == "Conv_0"
    with pytest.raises(UserError, match="there are Conv_0, Conv_1"):
        layers.spatial(found, "Dense_0")


def test_guided_backpropagation_by_hand():
    random = np.random.RandomState(3)
    a, b, c = (random.normal(size=shape) for shape in ((6, 5), (5, 4), (4,)))
    x = random.normal(size=(7, 6))

    def score(x):
        hidden = jax.jit(jax.nn.relu)(x @ jnp.asarray(a, jnp.float32))
        return jax.nn.relu(hidden @ jnp.asarray(b, jnp.float32)) @ jnp.asarray(c, jnp.float32)

    x32 = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(guided(score)(x32), score(x32), rtol=1e-6)
    first, second = x @ a, np.maximum(x @ a, 0) @ b
    back = np.where(second > 0, np.maximum(c, 0), 0) @ b.T
    wanted = np.where(first > 0, np.maximum(back, 0), 0) @ a.T
    for function in (guided(score), jax.jit(guided(score))):
        np.testing.assert_allclose(
            attribution.gradient(function, x32), wanted, rtol=1e-4, atol=1e-5
        )
    with pytest.raises(UserError, match="models with ReLU"):
        guided(lambda x: jnp.tanh(x).sum(axis=1))(x32)


def test_guided_backpropagation_of_a_network():
    predict, state, x = small_cnn()
    score = lambda x: predict.of_inputs(state, x)[:, 1]  # noqa: E731
    found = jax.jit(lambda x: attribution.gradient(guided(score), x))(x)
    assert found.shape == x.shape
    assert not np.allclose(found, attribution.gradient(score, x))


def test_all_rectifiers_of_a_fused_network_are_guided():
    x = jnp.asarray(np.random.RandomState(2).normal(size=(2, 12, 12, 1)), jnp.float32)
    predict, state = predictor(LeNet5(3, activation=jax.nn.relu), x)
    score = lambda x: predict.of_inputs(state, x)[:, 1]  # noqa: E731
    text = str(jax.make_jaxpr(guided(score))(x))
    assert "guided_relu" in text
    assert "name=relu" not in text
    np.testing.assert_allclose(guided(score)(x), score(x), rtol=1e-6)


def test_occlusion_is_that_of_a_loop():
    predict, state, x = small_cnn()
    score = lambda x: predict.of_inputs(state, x)[:, 0]  # noqa: E731
    masks = attribution.window_masks((8, 8), 3, 2)
    found = attribution.ablation(score, x, 0.0, masks)
    total, count = np.zeros(x.shape), np.zeros(x.shape)
    for top in (0, 2, 4, 5):
        for left in (0, 2, 4, 5):
            hidden = np.array(x)
            hidden[:, top : top + 3, left : left + 3] = 0
            fall = np.asarray(score(x)) - np.asarray(score(jnp.asarray(hidden)))
            total[:, top : top + 3, left : left + 3] += fall[:, None, None, None]
            count[:, top : top + 3, left : left + 3] += 1
    np.testing.assert_allclose(found, total / count, rtol=1e-4, atol=1e-6)


def test_rollout_is_the_product_of_the_layers():
    random = np.random.RandomState(0)
    weights = [random.dirichlet(np.ones(5), (2, 3, 5)) for _ in range(3)]
    found = attribution.rollout([jnp.asarray(w, jnp.float32) for w in weights])
    for n in range(2):
        flow = np.eye(5)
        for w in weights:
            flow = (0.5 * w[n].mean(axis=0) + 0.5 * np.eye(5)) @ flow
        np.testing.assert_allclose(found[n], flow, rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)


def test_attentions_of_a_vision_transformer():
    x = jnp.asarray(np.random.RandomState(0).normal(size=(2, 4, 4, 1)), jnp.float32)
    model = ViT(3, patch=2, layers=2, heads=2, features=4, hidden=6, class_token=True)
    predict, state = predictor(model, x)
    found = layers.attentions(predict, state, x)
    assert [w.shape for w in found] == 2 * [(2, 2, 5, 5)]
    np.testing.assert_allclose(np.sum(found[1], axis=-1), 1, rtol=1e-5)
    with pytest.raises(UserError, match="for Transformers"):
        layers.attentions(*small_cnn())


@pytest.mark.parametrize("insert", [False, True])
def test_removal_curves_are_those_of_a_loop(insert):
    ranking = jnp.asarray(np.random.RandomState(4).normal(size=(5, 4)), jnp.float32)
    found = attribution_checks.removal_curve(linear, X, 0.1, ranking, 4, insert)
    for n in range(5):
        order = np.argsort(-np.asarray(ranking[n]))
        for step in range(5):
            x = np.full((4, 3), 0.1) if insert else np.array(X[n])
            x[order[:step]] = X[n][order[:step]] if insert else 0.1
            assert found[step, n] == pytest.approx(np.sum(x * np.asarray(W)) + 0.5, abs=1e-5)
    assert attribution_checks.area(np.asarray(found)).shape == (5,)


def test_rank_correlations_are_scipys():
    from scipy.stats import spearmanr

    random = np.random.RandomState(0)
    a, b = random.normal(size=(2, 3, 4, 4)).round(1) + 0.01
    found = attribution_checks.rank_correlations(a, b)
    wanted = [spearmanr(a[n].ravel(), b[n].ravel()).statistic for n in range(3)]
    np.testing.assert_allclose(found, wanted)
    assert attribution_checks.rank_correlations(np.zeros((1, 4)), a[:1, 0]).tolist() == [0.0]


def test_layers_at_random():
    params = {"A_0": {"kernel": 1, "bias": 1}, "A_1": {"B": {"kernel": 1}}, "A_10": {"kernel": 1}}
    fresh = jax.tree.map(lambda leaf: 2, params)
    found = attribution_checks.randomized({"params": params}, {"params": fresh}, ["A_1"])
    wanted = params | {"A_1": {"B": {"kernel": 2}}}
    assert found == {"params": wanted}


@pytest.fixture
def shallow(monkeypatch):
    make_shallow(monkeypatch)


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_every_model_can_be_explained(name, dtype):
    """Gradients and second derivatives of the inputs, or of the embeddings of tokens."""
    model, variables = built(name, dtype)
    case = CASES[name]
    x = inputs(case, 2)
    apply = lambda state, x, **options: model.apply(  # noqa: E731
        state, x, **told(case), **options
    )
    predict = Predict(lambda batch: batch["x"], apply)
    values, function = x, lambda x: predict.of_inputs(variables, x)
    if case.model in OF_TOKENS:
        first = next(iter(layers.shapes(predict, variables, x)))
        values, function = layers.split_at(predict, variables, x, first)
    values = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), values)

    def total(values):
        leaves = jax.tree.leaves(function(values))
        return sum(jnp.sum(jnp.sin(leaf.astype(jnp.float32))) for leaf in leaves)

    def penalty(values):
        return sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(jax.grad(total)(values)))

    found = jax.jit(jax.grad(penalty))(values)
    for leaf, value in zip(jax.tree.leaves(found), jax.tree.leaves(values), strict=True):
        assert leaf.shape == value.shape
        assert np.all(np.isfinite(leaf))
    if name != "vgg":  # a layer norm of its one channel leaves nothing
        assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(found))
