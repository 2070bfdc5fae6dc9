import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl import augment

shapes = st.tuples(st.integers(1, 4), st.integers(3, 9), st.integers(3, 9), st.sampled_from([1, 3]))


def pictures(shape, seed=0):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape).astype(np.float32))


@settings(max_examples=12)
@given(shape=shapes, padding=st.integers(0, 2), seed=st.integers(0, 999))
def test_a_crop_is_a_window_of_the_reflected_image(shape, padding, seed):
    x = pictures(shape)
    crop = jax.jit(augment.random_crop, static_argnums=2)
    out = np.asarray(crop(jax.random.key(seed), x, padding))
    assert out.shape == shape
    edges = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(np.asarray(x), edges, mode="reflect")
    _, H, W, _ = shape
    for image, source in zip(out, padded, strict=True):
        windows = [
            source[r : r + H, c : c + W]
            for r in range(2 * padding + 1)
            for c in range(2 * padding + 1)
        ]
        assert any(np.array_equal(image, window) for window in windows)


def test_crops_reach_every_corner_alike():
    n, padding = 4000, 1
    x = jnp.broadcast_to(jnp.arange(25.0).reshape(1, 5, 5, 1), (n, 5, 5, 1))
    centres = np.asarray(augment.random_crop(jax.random.key(0), x, padding))[:, 2, 2, 0]
    places, counts = np.unique(centres, return_counts=True)
    assert len(places) == 9
    assert (abs(counts / n - 1 / 9) < 0.02).all()


def test_flips_half_of_the_images():
    x = pictures((1000, 2, 3, 1))
    out = augment.random_flip(jax.random.key(0), x)
    mirrored = (np.asarray(out) == np.asarray(x)[:, :, ::-1]).all((1, 2, 3))
    same = (np.asarray(out) == np.asarray(x)).all((1, 2, 3))
    assert (mirrored ^ same).all()
    assert 440 < mirrored.sum() < 560


def test_flips_alternate_from_epoch_to_epoch():
    x, index = pictures((1000, 2, 3, 1)), jnp.arange(5, 1005)
    key = jax.random.key(0)
    epochs = [np.asarray(augment.alternating_flip(key, x, index, epoch)) for epoch in range(4)]
    mirrored = np.asarray(x)[:, :, ::-1]
    flipped = (epochs[0] == mirrored).all((1, 2, 3))
    assert 440 < flipped.sum() < 560
    for epoch, out in enumerate(epochs):
        this = flipped ^ (epoch % 2 == 1)
        np.testing.assert_array_equal(out, np.where(this[:, None, None, None], mirrored, x))
    # An example is flipped by its own place in the data, whatever batch it is in.
    some = np.asarray([7, 900, 3])
    out = augment.alternating_flip(key, x[some], index[some], jnp.int32(2))
    np.testing.assert_array_equal(out, epochs[0][some])


@settings(max_examples=12)
@given(shape=shapes, down=st.integers(-2, 2), right=st.integers(-2, 2))
def test_a_shift_moves_and_reflects(shape, down, right):
    x = pictures(shape)
    padded = np.pad(np.asarray(x), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    wanted = np.roll(padded, (down, right), (1, 2))[:, 2:-2, 2:-2]
    np.testing.assert_array_equal(augment.shift(x, down, right), wanted)


@pytest.mark.parametrize(("level", "mirrored", "count"), [(0, True, 1), (1, True, 2), (2, True, 6)])
def test_views_are_weighted_and_of_one_another(level, mirrored, count):
    x = pictures((2, 5, 6, 3))
    views = augment.views(x, level, mirrored)
    assert len(views) == count
    assert sum(weight for weight, _ in views) == 1
    mean = sum(weight * view for weight, view in views)
    if level == 1:
        np.testing.assert_allclose(mean, (x + x[:, :, ::-1]) / 2, rtol=1e-6)


def test_views_of_what_has_sides_are_not_mirrored():
    x = pictures((2, 5, 6, 3))
    (weight, view), *moved = augment.views(x, 2, False)
    assert weight == 0.5
    assert view is x
    np.testing.assert_array_equal(moved[0][1], augment.shift(x, -1, -1))
    np.testing.assert_array_equal(moved[1][1], augment.shift(x, 1, 1))
    assert [weight for weight, _ in moved] == [0.25, 0.25]
    assert len(augment.views(x, 1, False)) == 1


@settings(max_examples=12)
@given(shape=shapes, size=st.integers(0, 12), seed=st.integers(0, 999))
def test_cutout_zeroes_one_rectangle_and_nothing_else(shape, size, seed):
    x = jnp.abs(pictures(shape)) + 1
    cut = jax.jit(augment.cutout, static_argnums=2)
    out = np.asarray(cut(jax.random.key(seed), x, size))
    for image, source in zip(out, np.asarray(x), strict=True):
        gone = (image == 0).all(-1)
        np.testing.assert_array_equal(image[~gone], source[~gone])
        rows, columns = gone.any(1), gone.any(0)
        np.testing.assert_array_equal(gone, rows[:, None] & columns[None, :])
        assert rows.sum() <= size
        assert columns.sum() <= size
        assert gone.any() == (size > 0)


@settings(max_examples=12)
@given(alpha=st.floats(0, 4, width=32), seed=st.integers(0, 999))
def test_mixup_mixes_images_as_it_mixes_labels(alpha, seed):
    x, labels = jnp.eye(5).reshape(5, 1, 5, 1), jnp.arange(5)
    mix = jax.jit(augment.mixup, static_argnums=3)  # whatever alpha is
    images, targets = mix(jax.random.key(seed), x, labels, 5, alpha)
    # The image of class k is the k-th unit vector, so that mixing shows the weights themselves.
    np.testing.assert_allclose(images.reshape(5, 5), targets, atol=1e-6)
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)
    if alpha == 0:
        np.testing.assert_array_equal(images, x)


def test_mixup_weight_is_beta():
    x, labels = jnp.asarray([0.0, 1.0]).reshape(2, 1, 1, 1), jnp.arange(2)
    keys = jax.random.split(jax.random.key(0), 4000)
    images, _ = jax.jit(jax.vmap(lambda key: augment.mixup(key, x, labels, 2, 0.4)))(keys)
    swapped = np.asarray(images)[:, 0].ravel()
    swapped = swapped[swapped > 0]  # about half of the orders leave image 0 where it is
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)).
    assert swapped.mean() == pytest.approx(0.5, abs=0.03)
    assert swapped.var() == pytest.approx(1 / (4 * 1.8), abs=0.01)


def test_normalize():
    images = np.random.RandomState(0).randint(0, 256, (20, 4, 4, 3)).astype(np.uint8)
    mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
    out = np.asarray(augment.normalize(jnp.asarray(images), mean, std))
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std((0, 1, 2)), 1, atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda k, x: augment.random_crop(k, x, 1),
        augment.random_flip,
        lambda k, x: augment.alternating_flip(k, x, jnp.arange(4) + 5, 0),
        lambda k, x: augment.cutout(k, x, 2),
        lambda k, x: augment.mixup(k, x, jnp.arange(4), 4, 0.5)[0],
    ],
)
def test_pure_in_the_key_and_the_same_compiled(function):
    x, key = pictures((4, 5, 5, 3)), jax.random.key(7)
    np.testing.assert_array_equal(function(key, x), function(key, x))
    np.testing.assert_allclose(jax.jit(function)(key, x), function(key, x), rtol=1e-6)
    assert not np.array_equal(function(key, x), function(jax.random.key(8), x))


def test_noise_is_of_its_deviation_and_of_whole_levels():
    image = jnp.full((8, 32, 32, 3), 100, jnp.uint8)
    noisy = np.asarray(augment.noise(jax.random.key(0), image, 9.0), np.float64)
    np.testing.assert_array_equal(noisy, np.round(noisy))
    assert noisy.mean() == pytest.approx(100, abs=0.2)
    assert noisy.std() == pytest.approx(np.sqrt(81 + 1 / 12), rel=0.02)
    assert augment.noise(jax.random.key(0), image, 0.0) is image
