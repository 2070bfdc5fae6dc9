"""Convolutions by oneDNN have the right values; skipped where its wheel or a compiler lacks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.nn import convolution, onednn
from jaxdl.nn.conv_window import Window
from tests.nn.convolved import CASES, SAME, by_onednn, operands

TOLERANCE = {"float32": 3e-6, "bfloat16": 1e-2}


def by_loops(case, x, w, y):
    """The three maps in float64, one tap of the kernel at a time."""
    _, window = CASES[case]
    x, w, y = (np.asarray(a, np.float64) for a in (x, w, y))
    (top, bottom), (left, right) = window.padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right), (0, 0)))
    forward, images, kernel = np.zeros_like(y), np.zeros_like(padded), np.zeros_like(w)
    (P, Q), (down, across) = window.out(), window.strides
    for i, j in np.ndindex(*window.kernel):
        seen = (..., slice(i, i + P * down, down), slice(j, j + Q * across, across), slice(None))
        pixels = padded[seen][..., :P, :Q, :]
        forward += np.einsum("nbpqi,nio->nbpqo", pixels, w[:, i, j])
        kernel[:, i, j] = np.einsum("nbpqi,nbpqo->nio", pixels, y)
        images[seen] += np.einsum("nbpqo,nio->nbpqi", y, w[:, i, j])
    H, W = window.image
    return forward, images[:, :, top : top + H, left : left + W], kernel


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_equals_loops_in_float64(engine, case, dtype):
    if dtype == "bfloat16" and not engine.has_bfloat16:
        pytest.skip("no bfloat16 in this processor")
    (x, w, y), window = operands(case, dtype)
    found = by_onednn(engine, x, w, y, window)
    for ours, wanted in zip(found, by_loops(case, x, w, y), strict=True):
        assert ours.shape == wanted.shape
        assert ours.dtype == dtype
        error = np.abs(np.asarray(ours, np.float64) - wanted).max() / np.abs(wanted).max()
        assert error < TOLERANCE[dtype]


def leave_nan_in_memory(engine):
    """Convolves numbers that are not finite, so that their memory may be the next one's."""
    for images in ((1, 8, 16, 16, 128), (1, 64, 2, 2, 128)):
        bad = jnp.full(images, jnp.nan, "bfloat16")
        window = Window((1, 1), SAME, images[2:4], (3, 3))
        shape = (1, 3, 3, 128, 128)
        jax.block_until_ready(onednn.convolve(engine, "to_kernel", bad, bad, shape, window))


@pytest.mark.parametrize(
    ("sizes", "window"),
    [
        ((1, 1, 64), Window((2, 2), SAME, (8, 1), (2, 2))),
        ((4, 128, 128), Window((1, 1), ((2, 2), (2, 2)), (1, 1), (5, 5))),
        ((4, 128, 128), Window((1, 1), ((3, 3), (3, 3)), (1, 1), (7, 7))),
        ((4, 32, 32), Window((3, 3), SAME, (4, 2), (3, 3))),
    ],
)
def test_the_gradient_of_what_meets_padding_only_is_0(engine, sizes, window):
    """There oneDNN reads other memory in bfloat16, so it is not used."""
    if not engine.has_bfloat16:
        pytest.skip("no bfloat16 in this processor")
    B, I, O = sizes  # noqa: E741
    x, y = (jnp.ones((B, *n, c), "bfloat16") for n, c in ((window.image, I), (window.out(), O)))
    wanted = convolution.xla_to_kernel(x, y, window)
    assert (np.asarray(wanted) == 0).any()
    for _ in range(3):
        leave_nan_in_memory(engine)
        found = jax.jit(partial(convolution.to_kernel.bind, window=window))(x[None], y[None])
        np.testing.assert_array_equal(found[0], wanted)


def test_no_other_memory_is_read(engine):
    if not engine.has_bfloat16:
        pytest.skip("no bfloat16 in this processor")
    random, calls = np.random.RandomState(0), 0
    while calls < 60:
        kernel, image = random.randint(1, 8, 2), random.randint(1, 4, 2)
        pads, strides = random.randint(0, kernel[:, None], (2, 2)), random.randint(1, 4, 2)
        rows, columns = pads.tolist()
        window = Window(
            tuple(strides.tolist()),
            (tuple(rows), tuple(columns)),
            tuple(image.tolist()),
            tuple(kernel.tolist()),
        )
        B, I, O = (random.choice(n) for n in ((1, 4, 8), (1, 32, 128), (8, 128, 192)))  # noqa: E741
        if 0 in window.out():
            continue
        shapes = (1, B, *image, I), (1, *kernel, I, O), (1, B, *window.out(), O)
        x, w, y = (jnp.ones(tuple(map(int, shape)), "bfloat16") for shape in shapes)
        for name, a, b, result in (
            ("forward", x, w, y),
            ("to_images", y, w, x),
            ("to_kernel", x, y, w),
        ):
            if onednn.engine_for(name, a, b, result, window) is engine:
                leave_nan_in_memory(engine)
                found = onednn.convolve(engine, name, a, b, result.shape, window)
                assert np.isfinite(np.asarray(found, np.float32)).all(), (name, window, B, I, O)
                calls += 1


def test_members_have_the_bits_that_they_have_alone(engine):
    (x, w, y), window = operands("members", "float32")
    together = by_onednn(engine, x, w, y, window)
    for n in range(len(x)):
        alone = by_onednn(engine, *(a[n : n + 1] for a in (x, w, y)), window)
        for one, all_of in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], all_of[n])


def test_errors_are_errors(engine):
    x, w = jnp.ones((1, 2, 8, 8, 3)), jnp.ones((1, 3, 3, 4, 5))
    window = Window((1, 1), SAME, (8, 8), (3, 3))
    with pytest.raises(jax.errors.JaxRuntimeError, match="shapes that do not fit"):
        onednn.convolve(engine, "forward", x, w, (1, 2, 8, 8, 5), window)
    with pytest.raises(jax.errors.JaxRuntimeError, match="oneDNN: could not create"):
        onednn.convolve(engine, "forward", x, jnp.ones((1, 3, 3, 3, 5)), (1, 2, 9, 9, 5), window)
    for name in onednn.MAPS:
        assert onednn.implementation(engine, name, jnp.float32, (2, 0, 4), window) == ""
