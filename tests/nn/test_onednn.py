"""Convolutions by oneDNN, and the forms without it; skipped where its wheel or a compiler lacks."""

import hashlib
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxdl import native
from jaxdl.nn import convolution, onednn
from jaxdl.nn.conv_window import Window
from jaxdl.nn.recurrent import Recurrent
from jaxdl.run import environment

ROOT = Path(__file__).parents[2]
TOLERANCE = {"float32": 3e-6, "bfloat16": 1e-2}
SAME = ((1, 1), (1, 1))
# (N, B, I, O), window. In the first four an image counts for a part of its own, or there are
# parts of different sizes. Those of channels are cut by them, as their kernel is the largest array.
CASES = {
    "parts": ((1, 7, 16, 32), Window((1, 1), SAME, (16, 16), (3, 3))),
    "strides": ((1, 5, 32, 64), Window((2, 2), SAME, (32, 32), (3, 3))),
    "members": ((3, 7, 16, 16), Window((1, 1), SAME, (16, 16), (3, 3))),
    "rectangles": ((2, 6, 16, 48), Window((2, 1), ((2, 1), (0, 3)), (19, 24), (5, 4))),
    "small": ((4, 3, 2, 5), Window((1, 2), ((0, 1), (1, 0)), (4, 5), (3, 2))),
    "colours": ((1, 4, 3, 16), Window((1, 1), SAME, (12, 12), (3, 3))),
    "pixels": ((2, 4, 32, 16), Window((2, 2), ((0, 0), (0, 0)), (8, 8), (1, 1))),
    "channels": ((2, 3, 130, 192), Window((1, 1), SAME, (2, 2), (3, 3))),
    "channels with strides": ((1, 2, 128, 150), Window((2, 2), SAME, (5, 4), (3, 3))),
    "cropped rows": ((1, 4, 16, 16), Window((3, 2), ((0, 0), (0, 0)), (9, 8), (2, 2))),
}


def normal(seed, *shape, dtype="float32"):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), dtype)


def operands(case, dtype):
    """Images, kernel and result of a case, all random."""
    (N, B, I, O), window = CASES[case]  # noqa: E741
    shapes = (N, B, *window.image, I), (N, *window.kernel, I, O), (N, B, *window.out(), O)
    return [normal(n, *shape, dtype=dtype) for n, shape in enumerate(shapes)], window


def by_loops(case, x, w, y):
    """The three maps in float64, one tap of the kernel at a time."""
    (_, _, _, _), window = CASES[case]
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


def by_onednn(engine, x, w, y, window):
    def maps(x, w, y):
        call = partial(onednn.convolve, engine, window=window)
        return (
            call("forward", x, w, shape=y.shape),
            call("to_images", y, w, shape=x.shape),
            call("to_kernel", x, y, shape=w.shape),
        )

    return jax.jit(maps)(x, w, y)


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
        kernel, image = random.randint(1, 6, 2), random.randint(1, 9, 2)
        pads, strides = random.randint(0, kernel[:, None], (2, 2)), random.randint(1, 4, 2)
        rows, columns = pads.tolist()
        window = Window(
            tuple(strides.tolist()),
            (tuple(rows), tuple(columns)),
            tuple(image.tolist()),
            tuple(kernel.tolist()),
        )
        B, I, O = (random.choice(n) for n in ((1, 2, 8), (1, 7, 32, 128), (1, 8, 32, 192)))  # noqa: E741
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


BITS = """
import os, sys
if sys.argv[2] == "one":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax
from jaxdl.nn import onednn
from tests.nn.test_onednn import digest
onednn.enable(sys.argv[1])
print(digest(), onednn.describe())
"""


def digest():
    """SHA-256 of the gradients of a convolution and of an LSTM."""

    def loss(x, w):
        y = convolution.convolve(x, w, (1, 1), SAME)
        return jnp.sum(jnp.sin(convolution.convolve(y, w, (2, 2), SAME).astype(jnp.float32)))

    sha = hashlib.sha256()
    for dtype in ("float32", "bfloat16"):
        x, w = normal(0, 13, 16, 16, 32, dtype=dtype), normal(1, 3, 3, 32, 32, dtype=dtype)
        by_channels = normal(3, 2, 2, 2, 128, dtype=dtype), normal(4, 3, 3, 128, 256, dtype=dtype)
        lstm = Recurrent("lstm", 16, bidirectional=True, dtype=dtype)
        rows, lengths = normal(2, 53, 7, 8, dtype=dtype), jnp.arange(53) % 8
        variables = lstm.init(jax.random.key(0), rows, lengths, train=False)

        def sequences(variables, lstm=lstm, rows=rows, lengths=lengths):
            y, _ = lstm.apply(variables, rows, lengths, train=False)
            return jnp.sum(jnp.sin(y.astype(jnp.float32)))

        gradients = [
            *jax.jit(jax.grad(loss, (0, 1)))(x, 0.1 * w),
            *jax.jit(jax.grad(layer, (0, 1)))(*by_channels),
            *jax.tree.leaves(jax.jit(jax.grad(sequences))(variables)),
        ]
        for gradient in gradients:
            sha.update(np.asarray(gradient.astype(jnp.float32)).tobytes())
    return sha.hexdigest()


@pytest.mark.usefixtures("engine")
def test_bits_do_not_depend_on_the_number_of_threads(tmp_path):
    def bits(cores, flags):
        folder, variables = onednn._directories[0], os.environ | {"XLA_FLAGS": flags}
        command = [sys.executable, "-c", BITS, folder, cores]
        result = subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, encoding="utf-8", check=True
        )
        assert "oneDNN" in result.stdout
        return result.stdout

    many = "--xla_force_host_platform_device_count=7"  # XLA has a thread for each device
    assert len({bits("one", ""), bits("all", ""), bits("all", many)}) == 1


@pytest.mark.usefixtures("engine")
def test_a_processor_without_the_instructions_takes_the_other_forms():
    code = "import sys, jax; from jaxdl.nn import onednn; jax.devices()\n"
    code += (
        "for folder in (sys.argv[1], sys.argv[1] + '/.'):  # refused again, with the same words\n"
    )
    code += "    onednn.enable(folder); print(onednn.describe(), onednn.reason())"
    result = subprocess.run(
        [sys.executable, "-c", code, onednn._directories[0]],
        cwd=ROOT,
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    reason = "this processor lacks AVX-512, or ONEDNN_MAX_CPU_ISA=AVX2 hides it"
    assert result.stdout == 2 * f"XLA {reason}\n"


def test_threads_of_the_host_may_call_at_the_same_time(engine):
    (x, w, y), window = operands("parts", "float32")
    wanted, found = by_onednn(engine, x, w, y, window), {}

    def work(n):
        for _ in range(5):
            found[n] = by_onednn(engine, x, w, y, window)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(6):
        for one, other in zip(found[n], wanted, strict=True):
            np.testing.assert_array_equal(one, other)


def test_errors_are_errors(engine):
    x, w = jnp.ones((1, 2, 8, 8, 3)), jnp.ones((1, 3, 3, 4, 5))
    window = Window((1, 1), SAME, (8, 8), (3, 3))
    with pytest.raises(jax.errors.JaxRuntimeError, match="shapes that do not fit"):
        onednn.convolve(engine, "forward", x, w, (1, 2, 8, 8, 5), window)
    with pytest.raises(jax.errors.JaxRuntimeError, match="oneDNN: could not create"):
        onednn.convolve(engine, "forward", x, jnp.ones((1, 3, 3, 3, 5)), (1, 2, 9, 9, 5), window)
    for name in onednn.MAPS:
        assert onednn.implementation(engine, name, jnp.float32, (2, 0, 4), window) == ""


def layer(x, w):
    return jnp.sum(jnp.sin(convolution.convolve(x, w, (1, 1), SAME).astype(jnp.float32)))


def gradients():
    """A new function, which JAX has not lowered yet."""
    return jax.jit(jax.grad(lambda x, w: layer(x, w), (0, 1)))


def shapes(*batch):
    sizes = (*(batch or (8,)), 16, 16, 16), (3, 3, 16, 32)
    return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in sizes]


def calls(text):
    return text.count(f"@{onednn.CONVOLUTION}")


@pytest.mark.usefixtures("engine")
def test_programs_for_export_do_not_contain_the_call():
    assert calls(gradients().lower(*shapes()).as_text()) == 3
    for batch in (8, *jax.export.symbolic_shape("b")):
        for platforms in (["cpu"], ["cpu", "cuda", "tpu"]):
            exported = jax.export.export(gradients(), platforms=platforms)(*shapes(batch))
            assert calls(exported.mlir_module()) == 0


@pytest.mark.usefixtures("engine")
def test_what_xla_divides_among_devices_does_not_contain_the_call():
    mesh = jax.sharding.AbstractMesh((2,), ("data",), axis_types=(AxisType.Auto,))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    x, w = shapes()
    arguments = x.update(sharding=split), w.update(sharding=whole)
    traced = gradients().trace(*arguments)
    assert calls(traced.lower(lowering_platforms=("cpu",)).as_text()) == 0


def test_what_it_is_slower_or_unable_for_takes_the_other_forms(engine):
    def chosen(name, sizes, window, dtype=jnp.float32):
        (B, I, O), out = sizes, window.out()  # noqa: E741
        x, w, y = (
            jax.ShapeDtypeStruct(shape, dtype)
            for shape in ((1, B, *window.image, I), (1, *window.kernel, I, O), (1, B, *out, O))
        )
        a, b, result = {"forward": (x, w, y), "to_images": (y, w, x), "to_kernel": (x, y, w)}[name]
        return onednn.engine_for(name, a, b, result, window)

    window = Window((1, 1), SAME, (16, 16), (3, 3))
    assert chosen("forward", (8, 32, 32), window) is engine
    assert chosen("forward", (8, 32, 32), window._replace(padding=((1, -1), (0, 0)))) is None
    assert chosen("forward", (0, 32, 32), window) is None
    assert chosen("forward", (8, 32, 32), window, jnp.float16) is None
    few = window._replace(image=(2, 2))
    assert chosen("to_kernel", (8, 512, 512), few) is engine
    assert chosen("to_kernel", (8, 512, 512), few._replace(strides=(2, 2))) is None


def test_without_it_the_other_forms_are_used(monkeypatch):
    arguments = normal(0, 8, 16, 16, 16), normal(1, 3, 3, 16, 32)
    with_it = gradients()(*arguments)
    monkeypatch.setattr(onednn, "_directories", [])
    assert onednn.describe() == environment.versions(1, ["convolutions"])["convolutions"] == "XLA"
    assert onednn.reason() == ""
    assert calls(gradients().lower(*shapes()).as_text()) == 0
    for one, other in zip(gradients()(*arguments), with_it, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ((onednn, "LIBRARY", "no-such-package"), "oneDNN is not installed: pip install 'jaxdl"),
        ((native, "COMPILERS", ("no-such-compiler",)), "there is no C++ compiler: install g++"),
        ((native, "COMPILERS", ("false",)), "false failed: no message"),
    ],
)
def test_what_lacks_is_named_in_one_line(monkeypatch, tmp_path, patch, reason):
    if patch[0] is native and onednn.describe() == "XLA":
        pytest.skip("oneDNN is not installed")
    monkeypatch.setattr(*patch)
    monkeypatch.setattr(onednn, "_loaded", {})
    monkeypatch.setattr(onednn, "_directories", [str(tmp_path)])
    assert reason in onednn.reason()
    assert "\n" not in onednn.reason()
    assert onednn.describe() == "XLA"
    assert calls(gradients().lower(*shapes()).as_text()) == 0


def test_a_folder_that_others_may_write_to_is_not_used(monkeypatch, tmp_path):
    if onednn.describe() == "XLA":
        pytest.skip("oneDNN is not installed")
    monkeypatch.setattr(onednn, "_loaded", {})
    (tmp_path / "verified").mkdir()
    (tmp_path / "verified").chmod(0o777)
    monkeypatch.setattr(onednn, "_directories", [str(tmp_path)])
    assert "other users may write to it" in onednn.reason()
