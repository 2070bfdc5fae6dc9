import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl import metrics


@settings(max_examples=25)
@given(n=st.integers(1, 30), cut=st.integers(0, 30), seed=st.integers(0, 99))
def test_parts_add_up_to_the_whole(n, cut, seed):
    random = np.random.RandomState(seed)
    values, mask = random.normal(size=n).astype(np.float32), random.randint(0, 2, n)
    mask[0], cut = 1, min(cut, n)

    def found(rows):
        return {"x": metrics.mean(jnp.asarray(values[rows]), jnp.asarray(mask[rows], jnp.float32))}

    whole = metrics.divide(metrics.add(found(slice(0, cut)), found(slice(cut, n))))
    np.testing.assert_allclose(
        whole["x"], values[mask > 0].astype(np.float64).mean(), rtol=1e-5, atol=1e-6
    )


def test_padding_never_counts_not_even_nan():
    total, count = metrics.mean(jnp.asarray([1.0, 3.0, jnp.nan]), jnp.asarray([1.0, 1.0, 0.0]))
    assert (total, count) == (4.0, 2.0)


def test_nothing_measured_is_nan():
    assert np.isnan(metrics.divide({"x": (jnp.float32(0), jnp.float32(0))})["x"])


def test_confusion_counts_each_pair():
    random = np.random.RandomState(0)
    logits = random.normal(size=(40, 4)).astype(np.float32)
    labels, mask = random.randint(0, 4, 40), (np.arange(40) < 33).astype(np.float32)
    total, count = metrics.confusion(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(mask))
    expected = np.zeros((4, 4))
    for row in range(33):
        expected[labels[row], logits[row].argmax()] += 1
    np.testing.assert_array_equal(total, expected)
    np.testing.assert_array_equal(count[:, 0], expected.sum(1))
    shares = metrics.divide({"confusion": (total, count)})["confusion"]
    np.testing.assert_allclose(shares.sum(1), 1)


def test_correct_takes_indices_and_probabilities():
    logits = jnp.asarray([[0.0, 1.0], [2.0, 1.0]])
    np.testing.assert_array_equal(metrics.correct(logits, jnp.asarray([1, 1])), [1, 0])
    soft = jnp.asarray([[0.2, 0.8], [0.3, 0.7]])
    np.testing.assert_array_equal(metrics.correct(logits, soft), [1, 0])


def test_correct_is_the_first_of_the_largest():
    random = np.random.RandomState(0)
    logits = random.randint(0, 3, (200, 4)).astype("float32")  # with many ties
    logits[random.rand(200, 4) < 0.05] = np.nan
    labels = random.randint(0, 4, 200)
    found = metrics.correct(jnp.asarray(logits), jnp.asarray(labels))
    whole = ~np.isnan(logits).any(axis=1)
    np.testing.assert_array_equal(found, (logits.argmax(1) == labels) & whole)


def test_r_squared_over_batches_is_scikit_learns():
    from sklearn.metrics import r2_score

    random = np.random.RandomState(0)
    t, y = random.normal(3, 2, 23), random.normal(3, 2, 23)
    total = {"r": (jnp.zeros(()), jnp.zeros(()))}
    for start in (0, 10, 20):  # the last one padded with nonsense
        rows = np.arange(start, start + 10)
        mask = (rows < 23).astype(np.float32)
        rows = rows % 23
        arrays = (jnp.asarray(a, jnp.float32) for a in (y[rows], t[rows], np.full(10, t.mean())))
        total = metrics.add(total, {"r": metrics.r_squared(*arrays, jnp.asarray(mask))})
    assert metrics.divide(total)["r"] == pytest.approx(r2_score(t, y), rel=1e-5)


def test_explained_variance_is_scikit_learns():
    from sklearn.metrics import explained_variance_score

    random = np.random.RandomState(0)
    t = random.normal(300, 2, 23)
    y = 0.8 * t + random.normal(0, 1, 23) - 70  # an error that all have in common costs nothing
    mask = np.r_[np.ones(20), np.zeros(3)].astype(np.float32)
    wanted = explained_variance_score(t[:20], y[:20])
    t[20:] = np.nan  # padding
    given = (jnp.asarray(a, jnp.float32) for a in (y, t, mask))
    pair = metrics.explained_variance(*given)
    assert metrics.divide({"x": pair})["x"] == pytest.approx(wanted, rel=1e-4)
    assert wanted > 0.4


def test_explained_variance_of_an_episode_that_has_two_axes():
    t = np.arange(12.0).reshape(3, 4)
    pair = metrics.explained_variance(jnp.asarray(t + 5), jnp.asarray(t), jnp.ones((3, 4)))
    assert metrics.divide({"x": pair})["x"] == 1


def test_entropy_of_shares_over_batches():
    found = metrics.Entropy(jnp.array([3.0, 0, 1]), jnp.float32(4))
    more = metrics.Entropy(jnp.array([1.0, 0, 3]), jnp.float32(4))
    value = metrics.divide(metrics.add({"x": found}, {"x": more}))["x"]
    assert value == pytest.approx(np.log(2))


@pytest.mark.parametrize("far", [0, 3000])
def test_frechet_distance_against_the_square_root_of_a_matrix(far):
    linalg = pytest.importorskip("scipy.linalg")
    random = np.random.RandomState(0)
    real, made = random.randn(2, 300, 5) @ random.randn(2, 5, 5)
    made = made + random.randn(5)
    mask, centre = jnp.ones(100), jnp.full(5, far, jnp.float32)
    real, made = ((a + far).astype(np.float32) for a in (real, made))
    total = None
    for n in range(0, 300, 100):
        given = map(jnp.asarray, (real[n : n + 100], made[n : n + 100]))
        part = {"d": metrics.frechet(*given, mask, centre)}
        total = part if total is None else metrics.add(total, part)
    C, D = (np.cov(a.T, bias=True) for a in (real, made))
    difference = real.mean(0, np.float64) - made.mean(0, np.float64)
    wanted = difference @ difference + np.trace(C + D - 2 * linalg.sqrtm(C @ D).real)
    assert metrics.divide(total)["d"] == pytest.approx(wanted, rel=1e-3)
    one = jnp.asarray(real)
    same = metrics.divide({"d": metrics.frechet(one, one, jnp.ones(300), centre)})
    assert same["d"] == pytest.approx(0, abs=1e-3)
