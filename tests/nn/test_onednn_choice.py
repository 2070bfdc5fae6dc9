"""Choice of oneDNN or other forms; most are skipped where its wheel or a compiler lacks."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxdl import native
from jaxdl.nn import onednn
from jaxdl.nn.conv_window import Window
from jaxdl.run import environment
from tests.nn.convolved import SAME, layer, normal

ROOT = Path(__file__).parents[2]


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
