"""The `parity` command on a small network, whose PyTorch side is NumPy with channels first."""

import numpy as np
import pytest

from experiments import mnist_cnn
from jaxdl import cli
from jaxdl.__main__ import run as command
from jaxdl.export import tensor_file
from jaxdl.flags import parse_flags
from tests.export.test_tensor_file import DAMAGED

FLAGS = ["--dataset=synthetic", "--image_size=8", "--num_steps=1", "--batch_size=4"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a run of one step."""
    folder = tmp_path_factory.mktemp("parity") / "run"
    mnist_cnn.run(parse_flags(mnist_cnn.Config, [*FLAGS, f"--workdir={folder}"]))
    return folder


def convolve(x, weight, bias):
    """3x3 convolution with padding 1: [B, I, H, W] -> [B, O, H, W]."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    H, W = x.shape[2:]
    shifted = [
        np.einsum("bihw,oi->bohw", padded[:, :, k : k + H, n : n + W], weight[:, :, k, n])
        for k in range(3)
        for n in range(3)
    ]
    return sum(shifted) + bias[:, None, None]


def pool(x):
    B, C, H, W = x.shape
    return np.maximum(x, 0).reshape(B, C, H // 2, 2, W // 2, 2).max((3, 5))


def file_of(path, seed=0, change=lambda arrays: None):
    """Writes what a hook on each module of the PyTorch model would keep."""
    random = np.random.RandomState(seed)
    sizes = {"conv1": (16, 3, 3, 3), "conv2": (32, 16, 3, 3), "fc1": (128, 128), "fc2": (10, 128)}
    weights = {name: 0.3 * random.normal(size=size) for name, size in sizes.items()}
    biases = {name: random.normal(size=size[0]) for name, size in sizes.items()}
    x = random.normal(size=(2, 3, 8, 8))
    first = convolve(x, weights["conv1"], biases["conv1"])
    second = convolve(pool(first), weights["conv2"], biases["conv2"])
    hidden = pool(second).reshape(2, -1) @ weights["fc1"].T + biases["fc1"]
    logits = np.maximum(hidden, 0) @ weights["fc2"].T + biases["fc2"]
    layers = {"conv1": first, "conv2": second, "fc1": hidden, "fc2": logits, "": logits}
    arrays = {"input": x} | {f"layers/{name}": value for name, value in layers.items()}
    for name in sizes:
        arrays |= {f"weights/{name}.weight": weights[name], f"weights/{name}.bias": biases[name]}
    change(arrays)
    tensor_file.write(path, {name: np.float32(array) for name, array in arrays.items()})
    return str(path)


def ends(capsys, *words):
    status = cli.guard(lambda: command(["parity", *map(str, words)]))
    out, err = capsys.readouterr()
    return status, out, err


def test_equal_layers_agree(trained, tmp_path, capsys):
    status, out, err = ends(capsys, trained, file_of(tmp_path / "a.safetensors"))
    assert status == 0, err
    lines = [line.split() for line in out.splitlines()]
    paths = [line[0] for line in lines[:-1]]
    assert paths == ["Conv_0", "Conv_1", "Dense_0", "Dense_1", "(model)"]
    assert [line[2] for line in lines[:-1]] == ["conv1", "conv2", "fc1", "fc2", "(model)"]
    assert all(float(line[1]) < 1e-5 for line in lines[:-1])
    assert out.splitlines()[-1] == "5 layers agree within 0.0001"


def test_the_first_layer_that_differs_is_named(trained, tmp_path, capsys):
    def wrong(arrays):
        arrays["weights/conv2.bias"] += 0.1

    path = file_of(tmp_path / "a.safetensors", change=wrong)
    status, out, err = ends(capsys, trained, path)
    assert status == 1
    assert "4 of 5 layers differ" in err
    assert "the first is Conv_1, in PyTorch conv2" in err
    assert ["differs" in line for line in out.splitlines()] == [False, True, True, True, True]
    assert ends(capsys, trained, path, "--tolerance=1")[0] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_differs(trained, tmp_path, capsys, value):
    def wrong(arrays):
        arrays["layers/fc1"][0, 0] = value

    status, _, err = ends(capsys, trained, file_of(tmp_path / "a.safetensors", change=wrong))
    assert status == 1
    assert "the first is Dense_0" in err


def test_without_weights_the_runs_own_are_used(trained, tmp_path, capsys):
    def without(arrays):
        for name in [name for name in arrays if name.startswith("weights/")]:
            del arrays[name]

    status, _, err = ends(capsys, trained, file_of(tmp_path / "a.safetensors", change=without))
    assert status == 1
    assert "5 of 5 layers differ" in err


def replace(name, make):
    def change(arrays):
        arrays[name] = make(arrays.get(name))

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda arrays: arrays.pop("input"), "has no array 'input'"),
        (replace("input", lambda x: x[:, :, :4]), "is [2, 3, 4, 8], and the model's input is"),
        (replace("input", lambda x: x.reshape(2, -1)), "is [2, 192], and the model's input is"),
        (replace("input", lambda x: np.float32(1)), "the array 'input' is []"),
        (replace("input", lambda x: x[:0]), "is [0, 3, 8, 8], and the model's input is"),
        (lambda arrays: arrays.pop("weights/fc2.bias"), "lack fc2.bias"),
        (replace("weights/extra.weight", lambda _: np.ones(2)), "have extra.weight"),
        (replace("weights/fc1.weight", lambda w: w.T[:5]), "does not fit params/Dense_0/kernel"),
        (
            replace("layers/conv2", lambda x: x[:, :, :2]),
            "Conv_1 has outputs [2, 4, 4, 32], and PyTorch's conv2 [2, 32, 2, 4]: write the file",
        ),
        (replace("layers/", lambda x: x[:, 1:]), "(model) has outputs [2, 10], and PyTorch's (mod"),
        (
            lambda arrays: [arrays.pop(name) for name in list(arrays) if "layers/" in name],
            "has outputs of no layer",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(trained, tmp_path, capsys, change, text):
    status, out, err = ends(capsys, trained, file_of(tmp_path / "a.safetensors", change=change))
    assert (status, out) == (2, "")
    assert text in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("damage", ["header larger than the file", "truncated", "same twice"])
def test_damaged_files_are_refused(trained, tmp_path, capsys, damage):
    path = tmp_path / "a.safetensors"
    path.write_bytes(DAMAGED[damage])
    status, out, err = ends(capsys, trained, path)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "is not a whole safetensors file" in err


def test_a_tolerance_is_a_number_from_0_on(trained, tmp_path, capsys):
    for tolerance in ("nan", "-1", "inf", "little"):
        status, _, err = ends(capsys, trained, tmp_path / "a", f"--tolerance={tolerance}")
        assert status == 2
        assert "tolerance" in err
