"""The sides of benchmarks train the same models, of as many parameters."""

import ast
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import cartpole_ppo
from experiments.benchmarks import cases, flax_side, jaxdl_side


def spec(tmp_path, model, steps):
    case = cases.Case(model, 2, "float32", steps, "torch")
    path = tmp_path / "examples.npz"
    cases.write(case._replace(steps=1), path)
    return case._asdict() | {"data": str(path)}


@pytest.mark.parametrize("steps", [0, 2])
def test_the_side_of_jaxdl(steps, tmp_path):
    report, turn = jaxdl_side.side(spec(tmp_path, "lenet5", steps))
    assert turn() > 0
    assert report["parameters"] == 61_706
    assert report["hardware"]
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("lstm", 1_083_456),
        ("gru", 821_312),
        ("rnn", 295_488),
        ("transformer", 7_578_624),
        ("resnet50", 23_528_522),
        ("vit", 2_693_194),
    ],
)
def test_our_models_have_the_parameters_of_pytorchs(model, parameters, tmp_path):
    made = spec(tmp_path, model, 1)
    data = jaxdl_side.dataset(model, made["data"])
    options = jaxdl_side.OPTIONS.get(model, {})
    experiment = jaxdl_side.EXPERIMENTS[model]
    task = experiment.build(experiment.Config(batch_size=2, **options), data.spec)
    state = jax.eval_shape(task.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == parameters


def test_plain_flax_has_the_parameters_of_ours():
    def count(model):
        shapes = jax.eval_shape(
            lambda: model.init(jax.random.key(0), np.zeros((1, 32, 32, 3), "f4"), train=False)
        )
        return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))

    experiment = jaxdl_side.EXPERIMENTS["vgg16"]
    assert count(flax_side.VGG16(np.float32)) == count(experiment.VGG(10)) == 14_728_266


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")  # of PyTorch's own Transformer
@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("vgg16", 14_728_266),
        ("resnet18", 11_173_962),
        ("resnet50", 23_528_522),
        ("vit", 2_693_194),
        ("lenet5", 61_706),
        ("lstm", 1_083_456),
        ("gru", 821_312),
        ("rnn", 295_488),
        ("transformer", 7_578_624),
    ],
)
def test_the_side_of_pytorch(model, parameters, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is an extra")
    from experiments.benchmarks import torch_side

    for steps in (0, 1) if model in ("vgg16", "resnet18", "lenet5") else (1,):
        report, turn = torch_side.side(spec(tmp_path, model, steps))
        assert report["parameters"] == parameters
        assert turn() > 0


def test_pytorchs_agent_has_the_flags_of_ours():
    """Read as text: this Python need not have PyTorch."""
    path = Path(cases.__file__).with_name("torch_agent.py")
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            names = [name.id.lower() for name in node.targets[0].elts]
            found |= dict(zip(names, ast.literal_eval(node.value), strict=True))
    assert len(found) == 9
    config = cartpole_ppo.Config()
    assert found == {name: getattr(config, name) for name in found}
    assert config.rollout == cases.ROLLOUT
