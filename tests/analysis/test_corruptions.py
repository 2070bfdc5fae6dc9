"""Corruptions: closed forms, SciPy and Pillow, and severities that grow."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import fft, ndimage

from jaxdl import augment
from jaxdl.analysis import corruptions, image_warps
from jaxdl.analysis.jpeg import LUMINANCE, cosines, jpeg
from jaxdl.errors import UserError

KEY = jax.random.key(0)


def images(channels=1, n=16):
    """Soft-edged discs, which all kinds change."""
    random = np.random.RandomState(0)
    y, x = np.mgrid[:28, :28]
    centre, radius = random.uniform(10, 18, (n, 2, 1, 1)), random.uniform(4, 9, (n, 1, 1))
    distance = np.hypot(y - centre[:, 0], x - centre[:, 1])
    grey = np.clip(radius - distance, 0, 1)[..., None]
    return (255 * grey * random.uniform(0.5, 1, (n, 1, 1, channels))).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", corruptions.KINDS)
def test_severities_grow(kind, channels):
    x = images(channels)
    program = jax.jit(lambda x, s: corruptions.corrupt(kind, KEY, x, s))
    changes = []
    for severity in range(1, 6):
        found = np.asarray(program(x, severity))
        assert found.shape == x.shape
        assert found.dtype == np.float32
        assert found.min() >= 0
        assert found.max() <= 255
        np.testing.assert_array_equal(found, np.round(found))
        changes.append(np.mean(np.abs(found - x)))
    assert changes[0] > 0
    if kind == "jpeg_compression":  # coarser steps may happen to fit these images better
        assert changes[4] > changes[0]
    else:
        assert np.all(np.diff(changes) > 0)


def test_the_same_key_gives_the_same_images():
    x = images()
    one, same, other = (
        corruptions.corrupt("gaussian_noise", jax.random.key(n), x, 3) for n in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)


def test_noise_has_its_moments():
    x = jnp.full((64, 28, 28, 1), 0.5)
    found = corruptions.gaussian_noise(KEY, x, jnp.float32(0.1))
    assert np.std(found) == pytest.approx(0.1, rel=0.02)
    found = corruptions.shot_noise(KEY, x, jnp.float32(50.0))
    assert np.mean(found) == pytest.approx(0.5, rel=0.01)
    assert np.var(found) == pytest.approx(0.5 / 50, rel=0.03)
    found = corruptions.impulse_noise(KEY, x, jnp.float32(0.2))
    assert np.mean(found == 0) == pytest.approx(0.1, rel=0.05)
    assert np.mean(found == 1) == pytest.approx(0.1, rel=0.05)


def test_blurs_are_scipys():
    x = images()[:2] / np.float32(255)
    weights = np.asarray(image_warps.disk(jnp.float32(1.7)))
    found = image_warps.blur(jnp.asarray(x), jnp.asarray(weights))
    for n in range(2):
        wanted = ndimage.correlate(x[n, ..., 0], weights, mode="nearest")
        np.testing.assert_allclose(found[n, ..., 0], wanted, atol=1e-5)


@pytest.mark.parametrize("fill", [False, True])
def test_warps_are_scipys(fill):
    x = images()[:2] / np.float32(255)
    places = np.random.RandomState(1).uniform(-4, 31, (2, 28, 28, 2)).astype(np.float32)
    found = image_warps.warp(jnp.asarray(x), jnp.asarray(places), fill)
    for n in range(2):
        padded = np.pad(x[n, ..., 0], 8, mode="constant" if fill else "edge")
        wanted = ndimage.map_coordinates(padded, np.moveaxis(places[n] + 8, -1, 0), order=1)
        np.testing.assert_allclose(found[n, ..., 0], wanted, atol=1e-4)


def test_a_shift_is_that_of_augmentation_with_a_black_border():
    x = 255 - images()
    found = corruptions.corrupt("shift", KEY, x, 2)
    wanted = np.array(augment.shift(jnp.asarray(x), 2, 2))
    wanted[:, :2] = wanted[:, :, :2] = 0
    np.testing.assert_array_equal(found, wanted)


def test_a_rotation_is_scipys():
    x = images()[:4] / np.float32(255)
    found = np.asarray(corruptions.rotation(KEY, jnp.asarray(x), jnp.float32(20.0)))[..., 0]
    for n in range(4):
        turned = [ndimage.rotate(x[n, ..., 0], a, reshape=False, order=1) for a in (20, -20)]
        assert min(np.max(np.abs(found[n] - wanted)) for wanted in turned) < 1e-3


def test_contrast_and_brightness():
    x = jnp.asarray(images()[:3] / np.float32(255))
    found = corruptions.contrast(KEY, x, jnp.float32(0.4))
    np.testing.assert_allclose(np.mean(found, (1, 2, 3)), np.mean(x, (1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(np.std(found, (1, 2, 3)), 0.4 * np.std(x, (1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(corruptions.brightness(KEY, x, jnp.float32(0.1)), x + 0.1)


def test_the_cosine_transform_is_scipys():
    block = np.random.RandomState(0).normal(size=(8, 8))
    found = cosines() @ block @ cosines().T
    np.testing.assert_allclose(found, fft.dctn(block, norm="ortho"), atol=1e-5)
    assert LUMINANCE.sum() == 3688


@pytest.mark.parametrize("quality", [15, 50, 90])
def test_jpeg_is_pillows(quality):
    x = images()[:4]
    found = np.asarray(jpeg(jnp.asarray(x / np.float32(255)), jnp.float32(quality)))
    for n in range(4):
        file = io.BytesIO()
        Image.fromarray(x[n, ..., 0]).save(file, "JPEG", quality=quality)
        wanted = np.asarray(Image.open(file), np.float32)
        levels = np.clip(np.round(255 * found[n, ..., 0]), 0, 255)
        assert np.mean(np.abs(levels - wanted)) < 0.4


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="no corruption 'rain': choose one of gaussian_noise"):
        corruptions.corrupt("rain", KEY, images(), 1)
