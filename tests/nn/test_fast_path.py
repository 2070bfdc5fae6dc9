"""Convolutions in the compiled training step of every model, on a CPU."""

import re

import jax
import pytest

from experiments import cifar_cnn, cifar_resnet, cifar_vgg, mnist_cnn, mnist_gan, mnist_lenet
from jaxdl.distributed import sharding
from jaxdl.nn import onednn
from jaxdl.train.step_spec import device_operands, step_spec
from jaxdl.train.train_step import Epoch, compile_step

CASES = {
    "lenet": (mnist_lenet, {}),
    "cnn": (mnist_cnn, {}),
    "cifar_cnn": (cifar_cnn, {}),
    "vgg": (cifar_vgg, {"width_multiplier": 0.05}),
    "resnet18": (cifar_resnet, {"width_multiplier": 0.05}),
    "gan": (mnist_gan, {"width": 16}),
    "preactivated": (cifar_resnet, {"width_multiplier": 0.05, "pre_activation": True}),
}


@pytest.mark.parametrize(
    ("case", "dtype"), [*((case, "float32") for case in CASES), ("vgg", "bfloat16")]
)
def test_no_convolution_leaves_the_fast_path(case, dtype, monkeypatch):
    """XLA's is fast on a CPU forwards, over channels that come last, without dilation or groups."""
    monkeypatch.setattr(onednn, "_directories", [])
    experiment, flags = CASES[case]
    config = experiment.Config(dataset="synthetic", batch_size=8, dtype=dtype, **flags)
    data = experiment.load(config)
    mesh = sharding.mesh(config)
    program = compile_step(step_spec(experiment.build, config, data, mesh))
    assert program.loops
    key, numbers = jax.random.key(0), device_operands(config, data.spec, mesh)
    epoch = Epoch(data.train, key, program.order({}, key, 0))
    text = program.compiled(numbers, program.start(numbers, key), epoch).as_text()
    found = re.findall(r"= (\w+)\[[^\n]* convolution\(([^\n]*)", text)
    # In bfloat16, and over few channels, there are products alone.
    assert bool(found) == (dtype == "float32" and case != "lenet")
    for kind, rest in found:
        assert kind == "f32"
        assert "dim_labels=b01f_01io->b01f" in rest
        for slow in ("lhs_dilate", "rhs_dilate", "rhs_reversal", "group_count"):
            assert slow not in rest
