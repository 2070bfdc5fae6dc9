"""Corruptions of images in five severities, as pure functions of (key, images, severity).

They are the fifteen kinds of Hendrycks and Dietterich (2019), and shifts and rotations. The kinds
are theirs, the formulas and strengths are our own: frost and snow are drawn, not photographed. So
figures compare models of this library, not with those published for CIFAR-10-C.

Shapes: B images of H by W pixels with C channels, 1 or 3.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdl.analysis.image_warps import blur, disk, fractal, grid, smooth_noise, warp
from jaxdl.analysis.jpeg import jpeg
from jaxdl.errors import UserError
from jaxdl.task import Key

SAMPLES = 9  # of which a motion and a zoom are the mean
Corruption = Callable[[Key, jax.Array, jax.Array], jax.Array]


def gaussian_noise(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """Normal noise with a standard deviation of `strength`."""
    return x + strength * jax.random.normal(key, x.shape)


def shot_noise(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """Poisson noise of `strength` photons in a white pixel."""
    return jax.random.poisson(key, jnp.clip(x, 0, 1) * strength).astype(x.dtype) / strength


def impulse_noise(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """Salt and pepper: a share `strength` of all entries is black or white."""
    draw = jax.random.uniform(key, x.shape)
    return jnp.where(draw < strength / 2, 0.0, jnp.where(draw < strength, 1.0, x))


def defocus_blur(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """Mean over a disk of radius `strength`."""
    del key
    return blur(x, disk(strength))


def glass_blur(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """Each pixel taken from a random place at most `strength` pixels away, and a small blur."""
    B, H, W, _ = x.shape
    away = jax.random.uniform(key, (B, H, W, 2), minval=-1, maxval=1)
    return blur(warp(x, grid(x) + strength * away), disk(jnp.float32(0.6)))


def motion_blur(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """Mean along a line of `strength` pixels in a random direction."""
    angle = jax.random.uniform(key, (len(x), 1, 1), maxval=2 * jnp.pi)
    direction = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    shifts = jnp.linspace(-0.5, 0.5, SAMPLES)
    moved = [warp(x, grid(x) + strength * shift * direction) for shift in shifts]
    return jnp.mean(jnp.stack(moved), axis=0)


def zoom_blur(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """Mean of the image zoomed by 1 to `strength`."""
    del key
    factors = [1 + (strength - 1) * n / (SAMPLES - 1) for n in range(SAMPLES)]
    return jnp.mean(jnp.stack([warp(x, _about_centre(x, 1 / f)) for f in factors]), axis=0)


def snow(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """Flakes that fall aslant, on a whiter image; `strength` is the share of flakes."""
    flakes_key, motion_key = jax.random.split(key)
    flakes = jax.random.uniform(flakes_key, (*x.shape[:3], 1)) < strength
    fallen = motion_blur(motion_key, flakes.astype(x.dtype), jnp.float32(3.0))
    whiter = jnp.maximum(x, jnp.mean(x, axis=-1, keepdims=True) * 0.7 + 0.3 * strength)
    return whiter + 2.5 * fallen


def frost(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """Branches of ice over the image, with a weight of `strength`."""
    ice = 1 - 4 * jnp.abs(fractal(key, x.shape[:3]) - 0.5)  # ridges where noise crosses its mean
    return (1 - 0.6 * strength) * x + strength * jnp.clip(ice, 0, 1)[..., None]


def fog(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """Clouds of fractal noise with a weight of `strength`, scaled to the brightness before."""
    most = jnp.max(x, axis=(1, 2, 3), keepdims=True)
    clouds = fractal(key, x.shape[:3])[..., None]
    return (x + strength * clouds) * most / (most + strength)


def brightness(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """A constant `strength` added to all pixels."""
    del key
    return x + strength


def contrast(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """Differences to the mean of the image times `strength`."""
    del key
    mean = jnp.mean(x, axis=(1, 2, 3), keepdims=True)
    return mean + strength * (x - mean)


def elastic(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """Smooth random displacement with a standard deviation of `strength` pixels."""
    away = jnp.stack([smooth_noise(k, x.shape[:3], 4) for k in jax.random.split(key)], axis=-1)
    return warp(x, grid(x) + strength * away)


def pixelate(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """Squares of one colour with sides of `strength` pixels."""
    del key
    smooth = blur(x, disk(strength / 2))
    return warp(smooth, (jnp.floor(grid(x) / strength) + 0.5) * strength - 0.5)


def jpeg_compression(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """JPEG of quality `strength`, from 1 to 100."""
    del key
    return jpeg(x, strength)


def shift(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """The image moved by `strength` pixels down and to the right; black comes in."""
    del key
    return warp(x, grid(x) - strength, fill=True)


def rotation(key: Key, x: jax.Array, strength: jax.Array) -> jax.Array:
    """The image turned by `strength` degrees to a random side; black comes in."""
    sign = jax.random.rademacher(key, (len(x), 1, 1), jnp.float32)
    angle = sign * strength * jnp.pi / 180
    y, z = jnp.moveaxis(_about_centre(x, 1.0, centred=True), -1, 0)
    turned = jnp.cos(angle) * y - jnp.sin(angle) * z, jnp.sin(angle) * y + jnp.cos(angle) * z
    return warp(x, jnp.stack(turned, axis=-1) + _centre(x), fill=True)


def _centre(x: jax.Array) -> jax.Array:
    return (jnp.asarray([[[x.shape[1:3]]]], jnp.float32) - 1) / 2


def _about_centre(x: jax.Array, factor: float | jax.Array, centred: bool = False) -> jax.Array:
    """Places of pixels times a factor, about the centre of the image or from there."""
    places = (grid(x) - _centre(x)) * factor
    return places if centred else places + _centre(x)


# Each kind: its function of pixels in 0 to 1, and the strength of each severity.
KINDS: dict[str, tuple[Corruption, tuple[float, float, float, float, float]]] = {
    "gaussian_noise": (gaussian_noise, (0.04, 0.08, 0.12, 0.18, 0.26)),
    "shot_noise": (shot_noise, (250, 100, 50, 25, 12)),
    "impulse_noise": (impulse_noise, (0.01, 0.03, 0.06, 0.1, 0.17)),
    "defocus_blur": (defocus_blur, (0.7, 1.0, 1.3, 1.7, 2.3)),
    "glass_blur": (glass_blur, (0.5, 0.8, 1.1, 1.5, 2.0)),
    "motion_blur": (motion_blur, (2, 3, 4.5, 6, 8)),
    "zoom_blur": (zoom_blur, (1.06, 1.12, 1.18, 1.25, 1.35)),
    "snow": (snow, (0.005, 0.01, 0.02, 0.035, 0.055)),
    "frost": (frost, (0.15, 0.3, 0.4, 0.5, 0.6)),
    "fog": (fog, (0.2, 0.4, 0.7, 1.0, 1.5)),
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (contrast, (0.75, 0.55, 0.4, 0.28, 0.18)),
    "elastic": (elastic, (0.4, 0.7, 1.0, 1.4, 1.8)),
    "pixelate": (pixelate, (1.3, 1.6, 2.0, 2.6, 3.4)),
    "jpeg_compression": (jpeg_compression, (50, 30, 18, 10, 6)),
    "shift": (shift, (1, 2, 3, 4, 5)),
    "rotation": (rotation, (5, 10, 17, 25, 35)),
}
HENDRYCKS = tuple(KINDS)[:15]


def corrupt(kind: str, key: Key, images: jax.Array, severity: int | jax.Array) -> jax.Array:
    """Corrupts images.

    Args:
      kind: one of KINDS.
      key: PRNG key.
      images: images [B, H, W, C] of 0 to 255, of integers or floats.
      severity: 1 to 5; may be traced.

    Returns:
      Images of whole levels 0 to 255, float32 [B, H, W, C].

    Raises:
      UserError: the kind is unknown.
    """
    if kind not in KINDS:
        raise UserError(f"no corruption {kind!r}: choose one of {', '.join(KINDS)}")
    function, strengths = KINDS[kind]
    strength = jnp.asarray(strengths, jnp.float32)[jnp.asarray(severity) - 1]
    found = function(key, jnp.asarray(images, jnp.float32) / 255, strength)
    return jnp.round(jnp.clip(found, 0, 1) * 255)
