"""The comparison with PyTorch, with what PyTorch computed once in the place of its side."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.benchmarks import torch_parity
from experiments.benchmarks.random_weights import fill
from jaxdl.errors import TrainingError, UserError
from jaxdl.export import tensor_file, torch_weights
from jaxdl.flags import parse_flags
from tests.export.test_torch_weights import RECORDED, like, shapes

NAME = "small_vit"


@pytest.fixture
def side(monkeypatch):
    """PyTorch's side: recorded outputs for its weights, and our own for ours plus `offset`."""
    facts = SimpleNamespace(offset=0.0, status=0)

    def run(words, **options):
        spec = json.loads(words[-1])
        folder = Path(spec["folder"])
        tensor_file.write(folder / "theirs.safetensors", fill(shapes(NAME)))
        tensors = tensor_file.read(folder / "ours.safetensors")
        variables = torch_weights.unflatten(torch_weights.from_torch(tensors, like(NAME)))
        x = torch_parity.batch(32)
        with np.load(folder / "input.npz", allow_pickle=False) as file:
            np.testing.assert_array_equal(file["x"], x.transpose(0, 3, 1, 2))
        ours = torch_parity.cases()[NAME].model.apply(variables, x, train=False)
        theirs = np.float32(RECORDED[NAME]["outputs"])
        np.savez(
            folder / "outputs.npz", allow_pickle=False, theirs=theirs, ours=ours + facts.offset
        )
        sizes = json.dumps(shapes(NAME))
        return SimpleNamespace(returncode=facts.status, stdout=sizes, stderr="Traceback\nno memory")

    monkeypatch.setattr(torch_parity.subprocess, "run", run)
    monkeypatch.setattr(torch_parity, "command", lambda side, spec, python, module: [spec])
    return facts


def config(*flags):
    return parse_flags(torch_parity.Config, [f"--only={NAME}", *flags])


def test_equal_outputs_are_recorded(side, tmp_path, capsys):
    path = tmp_path / "record.json"
    assert torch_parity.run(config(f"--record={path}"))[NAME] < 1e-5
    assert json.loads(path.read_text(encoding="utf-8")) == {NAME: RECORDED[NAME]}
    assert capsys.readouterr().out.splitlines()[1].startswith(NAME)


def test_other_outputs_are_an_error(side):
    side.offset = 0.1
    with pytest.raises(TrainingError, match=f"{NAME}: above --tolerance"):
        torch_parity.run(config())


def test_a_side_that_fails_and_unknown_names_are_mistakes(side):
    side.status = 1
    with pytest.raises(UserError, match=f"PyTorch's {NAME}: no memory"):
        torch_parity.run(config())
    with pytest.raises(UserError, match="--only=alexnet: choose from vgg11"):
        torch_parity.run(config("--only=alexnet"))


def test_outputs_that_do_not_depend_on_the_input_show_nothing():
    with pytest.raises(UserError, match="hardly depend on the input"):
        torch_parity.error(np.ones((2, 3)), np.ones((2, 3)))
    b = np.array([[1.0, 2.0], [4.0, -8.0]])
    assert torch_parity.error(b + np.diag([0, 2]), b) == 0.25
