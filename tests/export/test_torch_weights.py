"""Conversion of PyTorch's weights, held against what PyTorch itself computed and named.

`torchvision.json` is written by `experiments.benchmarks.torch_parity --record`, in PyTorch.
"""

import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.random_weights import fill
from experiments.benchmarks.torch_parity import batch, cases, variables_like
from jaxdl.errors import UserError
from jaxdl.export import tensor_file
from jaxdl.export.torch_layers import find_links
from jaxdl.export.torch_weights import (
    flatten,
    from_torch,
    is_torch,
    matching_modules,
    save_torch,
    to_torch,
    unflatten,
)
from jaxdl.models.cnn import CNN
from jaxdl.models.lenet import LeNet5
from jaxdl.models.mlp import MLP
from jaxdl.models.resnet import ResNet
from jaxdl.models.rnn_lm import RecurrentLanguageModel
from jaxdl.models.vgg import VGG
from jaxdl.models.vit import ViT
from jaxdl.nn.cells import CELLS
from jaxdl.nn.norm import NORMS
from jaxdl.nn.recurrent import Recurrent
from tests.models import zoo

RECORDED = json.loads((Path(__file__).parent / "torchvision.json").read_text(encoding="utf-8"))
SMALL = [name for name, model in RECORDED.items() if "outputs" in model]


@cache
def shapes(name):
    """Shapes of PyTorch's tensors."""
    pairs = (line.rpartition(" ") for line in RECORDED[name]["tensors"])
    return {key: tuple(int(n) for n in size.split("x") if n) for key, _, size in pairs}


@cache
def like(name):
    case = cases()[name]
    return variables_like(case.model, batch(case.size))


def drawn(variables):
    """Random leaves of the shapes of a model's variables."""
    return fill({path: leaf.shape for path, leaf in flatten(variables).items()})


def shape_of(model, *inputs):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, train=False))


IMAGES = jnp.zeros((1, 32, 32, 3))
OTHERS = {
    "vgg_cifar": lambda: shape_of(VGG(3, width_multiplier=0.05), IMAGES),
    "resnet_cifar": lambda: shape_of(ResNet(3, 18, "cifar", width_multiplier=0.1), IMAGES),
    "resnet34": lambda: shape_of(ResNet(3, 34, width_multiplier=0.1), IMAGES),
    "vit_mean": lambda: shape_of(ViT(3, layers=1, features=8), IMAGES),
    "vit_grey": lambda: shape_of(ViT(3, layers=1, features=8), IMAGES[..., :1]),
    "lenet": lambda: shape_of(LeNet5(3), IMAGES),
    "cnn": lambda: shape_of(CNN(3, (2, 5), 4, norm=NORMS["batch"]), IMAGES),
    "mlp": lambda: shape_of(MLP(3, (4, 5), norm=NORMS["batch"]), jnp.zeros((1, 6))),
    "language_model": lambda: shape_of(
        RecurrentLanguageModel(9, "gru", 4, 2), jnp.ones((1, 3), jnp.int32)
    ),
    **{
        f"{cell}_alone": lambda cell=cell: shape_of(
            Recurrent(cell, 3, 2, True), jnp.zeros((1, 4, 5)), jnp.ones(1, jnp.int32)
        )
        for cell in CELLS
    },
}


@pytest.mark.parametrize("name", SMALL)
def test_outputs_are_pytorchs(name):
    case = cases()[name]
    leaves = from_torch(fill(shapes(name)), like(name))
    apply = jax.jit(lambda variables, x: case.model.apply(variables, x, train=False))
    outputs = apply(unflatten(leaves), batch(case.size))
    wanted = np.array(RECORDED[name]["outputs"])
    np.testing.assert_allclose(outputs, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", RECORDED)
def test_names_and_shapes_are_pytorchs(name):
    # Arrays of one repeated value, which take no memory.
    flat = {
        path: np.broadcast_to(np.float32(0), leaf.shape)
        for path, leaf in flatten(like(name)).items()
    }
    converted = {}
    for link in find_links(flat):
        outputs = link.to_torch(*(flat[path] for path in link.paths))
        converted |= {key: a.shape for key, a in zip(link.names, outputs, strict=True)}
    assert converted == shapes(name)


@pytest.mark.parametrize("name", [*SMALL, *OTHERS])
def test_there_and_back_is_the_same_bits(name):
    variables = OTHERS[name]() if name in OTHERS else like(name)
    leaves = drawn(variables)
    back = from_torch(to_torch(unflatten(leaves)), variables)
    assert back.keys() == leaves.keys()
    for path, leaf in leaves.items():
        assert back[path].dtype == np.float32
        assert back[path].tobytes() == np.float32(leaf).tobytes(), path


@pytest.mark.parametrize("name", SMALL)
def test_back_and_there_is_the_same_but_for_added_biases(name):
    tensors = fill(shapes(name))
    again = to_torch(unflatten(from_torch(tensors, like(name))))
    assert again.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert again[key].dtype == tensor.dtype
        if "bias_ih" not in key and "bias_hh" not in key:
            np.testing.assert_array_equal(again[key], tensor)
    for key in (key for key in tensors if "bias_ih" in key):
        other = key.replace("bias_ih", "bias_hh")
        np.testing.assert_allclose(
            again[key] + again[other], tensors[key] + tensors[other], atol=1e-6
        )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, h, c, w_ih, w_hh, b_ih, b_hh):
    i, f, g, o = np.split(w_ih @ x + b_ih + w_hh @ h + b_hh, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(x, h, c, w_ih, w_hh, b_ih, b_hh):
    (ir, iz, i_n), (hr, hz, hn) = np.split(w_ih @ x + b_ih, 3), np.split(w_hh @ h + b_hh, 3)
    r, z = sigmoid(ir + hr), sigmoid(iz + hz)
    return (1 - z) * np.tanh(i_n + r * hn) + z * h, c


@pytest.mark.parametrize("cell", [lstm, gru])
def test_recurrent_layers_follow_the_formulas_of_pytorchs_manual(cell):
    gates, F, D, T = {"lstm": 4, "gru": 3}[cell.__name__], 3, 2, 5
    sizes = {
        "weight_ih_l0": (gates * F, D),
        "weight_hh_l0": (gates * F, F),
        "bias_ih_l0": (gates * F,),
        "bias_hh_l0": (gates * F,),
    }
    tensors = fill(sizes, seed=2)
    x = np.random.RandomState(0).normal(size=(1, T, D)).astype(np.float32)
    model, lengths = Recurrent(cell.__name__, F), jnp.array([T])
    leaves = from_torch(tensors, shape_of(model, x, lengths))
    outputs, _ = model.apply(unflatten(leaves), x, lengths, train=False)
    h = c = np.zeros(F)
    for n in range(T):
        h, c = cell(x[0, n].astype(float), h, c, *(tensors[key].astype(float) for key in sizes))
        np.testing.assert_allclose(outputs[0, n], h, atol=1e-6)


def test_a_flattened_image_keeps_its_pixels():
    variables = OTHERS["lenet"]()
    leaves = drawn(variables)
    kernel = leaves["params/Dense_0/kernel"]
    side = int((kernel.shape[0] / 16) ** 0.5)
    image = np.random.RandomState(0).normal(size=(side, side, 16)).astype(np.float32)
    weight = to_torch(unflatten(leaves))["fc1.weight"]
    there = weight @ image.transpose(2, 0, 1).reshape(-1)
    np.testing.assert_allclose(there, image.reshape(-1) @ kernel, rtol=1e-3, atol=1e-4)


def test_an_embedding_of_a_language_model_is_scaled():
    leaves = drawn(OTHERS["language_model"]())
    table = leaves["params/embed/embedding"]
    np.testing.assert_array_equal(to_torch(unflatten(leaves))["embedding.weight"], 2 * table)


@pytest.mark.parametrize(
    ("count", "mean", "steps"), [(50, 0.5, 50), (0, 0.5, 180), (0, 0.0, 0), (2**40, 0.5, 2**24)]
)
def test_statistics_of_published_weights_are_not_forgotten(count, mean, steps):
    sizes = {"0.weight": (4, 6), "0.bias": (4,), "3.weight": (3, 4), "3.bias": (3,)}
    tensors = fill(sizes) | {
        "1.weight": np.ones(4, np.float32),
        "1.bias": np.zeros(4, np.float32),
        "1.running_mean": np.full(4, mean, np.float32),
        "1.running_var": np.ones(4, np.float32),
        "1.num_batches_tracked": np.array(count),
    }
    variables = shape_of(MLP(3, (4,), norm=NORMS["batch"]), jnp.zeros((1, 6)))
    assert from_torch(tensors, variables)["batch_stats/BatchNorm_0/steps"] == steps
    if count == 0:  # weights may lack the count
        del tensors["1.num_batches_tracked"]
        assert from_torch(tensors, variables)["batch_stats/BatchNorm_0/steps"] == steps


def test_a_count_of_steps_may_be_missing():
    leaves = drawn(like("small_vgg"))
    wanted = to_torch(unflatten(leaves))
    without = {path: leaf for path, leaf in leaves.items() if not path.endswith("/steps")}
    tensors = to_torch(unflatten(without))
    assert tensors.keys() == wanted.keys()
    for name, tensor in tensors.items():
        counted = name.endswith("num_batches_tracked")
        np.testing.assert_array_equal(tensor, 0 if counted else wanted[name])


def test_numbered_and_wrapped_modules_are_recognised():
    variables = OTHERS["lenet"]()
    tensors = to_torch(unflatten(drawn(variables)))
    numbers = {"conv1": "0", "conv2": "3", "fc1": "7", "fc2": "9", "fc3": "11"}
    sequential = {
        f"module.{numbers[module]}.{part}": array
        for module, part, array in ((*name.split("."), a) for name, a in tensors.items())
    }
    wanted, leaves = from_torch(tensors, variables), from_torch(sequential, variables)
    for path, leaf in wanted.items():
        np.testing.assert_array_equal(leaves[path], leaf)
    assert matching_modules(variables, sequential)["Dense_2"] == "module.11"
    fault = (
        r"module\.11\.weight \[2, 84\].* does not fit .*Dense_2.*, which is \[3, 84\], \[3\] there"
    )
    with pytest.raises(UserError, match=fault):
        from_torch(sequential | {"module.11.weight": np.zeros((2, 84))}, variables)


def test_a_last_layer_for_other_classes_can_be_kept_apart():
    tensors = fill(shapes("small_vit"))
    tensors["heads.head.weight"] = np.zeros((7, 8), np.float32)
    with pytest.raises(UserError, match=r"heads\.head\.weight \[7, 8\].* does not fit .*\[8, 3\]"):
        from_torch(tensors, like("small_vit"))
    leaves = from_torch(tensors, like("small_vit"), check_shapes=False)
    assert leaves["params/head/kernel"].shape == (8, 7)


@pytest.mark.parametrize("change", ["missing", "left", "rank", "shape", "empty", "scalar", "other"])
@pytest.mark.parametrize("name", ["small_vgg", "small_resnet18", "small_vit", "gru"])
def test_tensors_that_do_not_fit_are_named(name, change):
    tensors = fill(shapes(name))
    first = next(key for key in tensors if key.endswith("weight") or "weight_ih" in key)
    array = tensors[first]
    other = next(key for key in RECORDED if key.startswith("small") and key != name)
    tensors |= {
        "missing": {},
        "left": {"extra.\x1b[2J/../weight": array},
        "rank": {first: array[None]},
        "shape": {first: array[:-1]},
        "empty": {first: array[:0]},
        "scalar": {first: np.float32(0)},
        "other": {},
    }[change]
    if change == "missing":
        del tensors[first]
    if change == "other":
        tensors = fill(shapes(other))
    with pytest.raises(UserError, match="PyTorch's ") as caught:
        from_torch(tensors, like(name))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_models_without_a_counterpart_are_refused():
    fits = {"mlp", "lenet", "cnn", "resnet", "vit", "language", "discriminator"}
    for name in zoo.CASES:
        variables = zoo.built(name, "float32")[1]
        if name in fits | {f"classifier_{cell}" for cell in CELLS}:
            assert from_torch(to_torch(variables), variables)
        else:
            with pytest.raises(UserError, match="no counterpart in PyTorch"):
                to_torch(variables)
    for model in (ResNet(3, 18, pre_activation=True), ResNet(3, 18, norm=NORMS["group"])):
        with pytest.raises(UserError, match="no counterpart in PyTorch"):
            to_torch(unflatten(drawn(shape_of(model, IMAGES))))


def test_names_tell_the_side():
    for name in RECORDED:
        assert is_torch(shapes(name))
        assert not is_torch(flatten(like(name)))
    assert is_torch(["weight_ih_l0", "bias_hh_l0"])
    assert not is_torch([])


def test_a_saved_file_has_pytorchs_tensors(tmp_path):
    variables = unflatten(drawn(like("small_vit")))
    path = tmp_path / "weights.safetensors"
    save_torch(variables, path)
    tensors = tensor_file.read(path)
    assert tensors.keys() == shapes("small_vit").keys()
    for name, tensor in to_torch(variables).items():
        np.testing.assert_array_equal(tensors[name], tensor)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
