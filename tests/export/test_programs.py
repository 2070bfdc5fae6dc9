"""Exported programs give the outputs of `predict`, for any number of examples, without jaxdl."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import (
    forecast_rnn,
    iris_mlp,
    mnist_lenet,
    multi30k_transformer,
    shakespeare_lm,
    tabular_mlp,
)
from jaxdl.errors import TrainingError
from jaxdl.export import card, check, folder, quantize, script, stablehlo
from jaxdl.export.model_weights import model_weights
from jaxdl.export.tensor_file import dumps, loads

SMALL = {"layers": 1, "features": 8, "batch_size": 4}
EXPERIMENTS = {
    "mlp": (iris_mlp, {}),
    "table": (tabular_mlp, {"members": 2, "hidden": 8}),
    "gaps": (forecast_rnn, {"target": "impute", "length": 24, "features": 8}),
    "conv": (mnist_lenet, {"image_size": 12}),
    "language": (shakespeare_lm, SMALL | {"length": 8}),
    "translator": (multi30k_transformer, SMALL | {"widths": 1}),
}
N = 5


class Made:
    """A task of random weights, its programs, and a batch for it."""

    def __init__(self, name, dtype="float32", quantized=""):
        module, fields = EXPERIMENTS[name]
        config = module.Config(dataset="embedded", dtype=dtype, **fields)
        data = module.load(config)
        self.spec, task = data.spec, module.build(config, data.spec)
        self.predict = task.predict
        self.inputs = self.predict.inputs(self.spec.example())
        self.batch = {name: np.asarray(data.test[name][np.arange(N)]) for name in self.inputs}
        state = jax.jit(task.init)(jax.random.key(0))
        self.weights = model_weights(self.predict, state, self.inputs)
        self.stored = quantize.pack(self.weights.arrays, dtype, quantized)
        self.programs = stablehlo.programs(self.predict, self.weights, self.spec)
        self.state = self.weights.state(quantize.unpack(self.stored))
        self.plain = state

    def outputs(self, state):
        return stablehlo.named(jax.jit(self.predict)(state, self.batch))


@pytest.fixture(scope="module")
def made():
    return {name: Made(name) for name in EXPERIMENTS}


def call(program, stored, batch):
    content = stablehlo.serialize(stablehlo.export(program, stored))
    exported = jax.export.deserialize(bytearray(content))
    assert exported.platforms == stablehlo.PLATFORMS
    return jax.jit(exported.call)(stored, batch)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_outputs_for_any_number_of_examples(name, made):
    one = made[name]
    content = stablehlo.serialize(stablehlo.export(one.programs["predict"], one.stored))
    program = jax.jit(jax.export.deserialize(bytearray(content)).call)
    expected = one.outputs(one.plain)
    for count in (1, N):
        outputs = program(one.stored, {n: a[:count] for n, a in one.batch.items()})
        wanted = {n: a[:count] for n, a in expected.items()}
        assert check.error(outputs, wanted) <= 1e-5


@pytest.mark.parametrize("name", ["language", "translator"])
def test_decoding(name, made):
    """One token after the other gives the logits of all at once, apart from special tokens."""
    one = made[name]
    next_token = one.programs["next"]
    if name == "translator":
        state = call(one.programs["start"], one.stored, {"source": one.batch["source"]})
        tokens, first, logits = one.batch["target"], 0, []
    else:
        tokens, first = one.batch["tokens"].astype(np.int32), 2
        state = dict(call(one.programs["start"], one.stored, {"tokens": tokens[:, :first]}))
        logits = [state.pop("logits")]
    content = stablehlo.serialize(stablehlo.export(next_token, one.stored))
    program = jax.jit(jax.export.deserialize(bytearray(content)).call)
    for position in range(first, 4):
        given = {"tokens": tokens[:, position].astype(np.int32), "position": np.int32(position)}
        state = dict(program(one.stored, state | given))
        logits.append(state.pop("logits"))
    found = np.stack(logits, axis=1)
    whole = np.asarray(one.outputs(one.plain)["outputs"])[:, max(first - 1, 0) : 4]
    possible = np.isfinite(found)
    assert possible.mean() > 0.5
    np.testing.assert_allclose(found[possible], whole[possible], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["conv", "translator"])
def test_int8_is_dequantized_inside(name):
    one = Made(name, quantized="int8")
    assert any(a.dtype == np.int8 for a in one.stored.values())
    outputs = call(one.programs["predict"], one.stored, one.batch)
    assert check.error(outputs, one.outputs(one.state)) <= 1e-5
    assert 0 < check.error(outputs, one.outputs(one.plain)) < 0.1


def test_half_precision():
    one = Made("conv", "bfloat16")
    outputs = call(one.programs["predict"], one.stored, one.batch)
    assert check.error(outputs, one.outputs(one.plain)) <= 2e-2


def test_weights_have_the_names_of_the_model(made):
    assert set(made["conv"].stored) == {
        f"params/{layer}/{kind}"
        for layer in ("ConvPool_0", "ConvPool_1", "Dense_0", "Dense_1", "Dense_2")
        for kind in ("kernel", "bias")
    }


def test_safetensors_keep_the_bits():
    random = np.random.RandomState(0)
    arrays = {
        "a": random.normal(size=(2, 3)).astype(np.float32),
        "b": random.normal(size=(4,)).astype(jnp.bfloat16),
        "c": np.arange(3, dtype=np.int8),
        "d": random.normal(size=(3, 2)).astype(np.float32).T,
    }
    back = loads(dumps(arrays), "weights")
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def write(one, path, text=script.SCRIPT):
    """Writes an export of the program `predict`."""
    program = one.programs["predict"]
    contents = {
        "predict.stablehlo": stablehlo.serialize(stablehlo.export(program, one.stored)),
        "weights.safetensors": dumps(one.stored),
        "predict.py": text.encode(),
    }
    shapes = card.describe_shapes(program.inputs)
    described = {"predict": {"file": "predict.stablehlo", "inputs": shapes}}
    values = {"format": card.FORMAT, "programs": described, "files": folder.digests(contents)}
    values |= {"kind": one.predict.kind, "classes": []}
    folder.write(path, contents | {card.NAME: json.dumps(values).encode()})


def test_a_process_without_jaxdl_gives_the_same(made, tmp_path):
    one = made["mlp"]
    write(one, tmp_path / "whole")
    expected = one.outputs(one.plain)
    for outputs in check.outputs_alone(tmp_path / "whole", one.batch, "stablehlo", (1, 3)).values():
        assert check.error(outputs, expected) <= 1e-5
    other = {name: array * 1.01 for name, array in one.stored.items()}
    (tmp_path / "whole" / "weights.safetensors").write_bytes(dumps(other))
    (outputs,) = check.outputs_alone(tmp_path / "whole", one.batch, "stablehlo", (N,)).values()
    assert check.error(outputs, expected) > 1e-5
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == [
        *("card.json", "predict.py", "predict.stablehlo", "weights.safetensors")
    ]


@pytest.mark.parametrize("package", ["jaxdl", "flax"])
def test_the_process_cannot_import_jaxdl(package, made, tmp_path):
    write(made["mlp"], tmp_path / "it", f"import {package}\n")
    with pytest.raises(TrainingError, match=f"{package} is blocked"):
        check.outputs_alone(tmp_path / "it", made["mlp"].batch, "stablehlo", (N,))


def test_the_script_prints_classes(made, tmp_path):
    write(made["conv"], tmp_path / "it")
    np.save(tmp_path / "image.npy", made["conv"].batch["image"])
    command = [sys.executable, "-I", tmp_path / "it" / "predict.py"]
    done = subprocess.run([*command, tmp_path / "image.npy"], capture_output=True, encoding="utf-8")
    header, *rows = done.stdout.splitlines()
    assert header == f"outputs float32 ({N}, 10)"
    assert len(rows) == N
    row = np.asarray(made["conv"].outputs(made["conv"].plain)["outputs"])[0]
    assert rows[0].split()[0] == str(row.argmax())
    assert len(rows[0].split(", ")) == 5
    refused = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert refused.returncode == 1
    assert refused.stderr.startswith("usage: python predict.py image.npy")


def printed(folder, *files):
    """Status and output of predict.py in a process of its own."""
    command = [sys.executable, "-I", folder / "predict.py", *files]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (lambda x: x[:, :4], "is uint8 .*: give image, uint8 .'b', "),
        (lambda x: x[:0], "is uint8 .0, "),
        (lambda x: x.astype(np.float32), "is float32 .*: give image, uint8"),
        (lambda x: x[None, None], "is uint8 .1, 1, "),
        (lambda x: None, "No such file"),
        (lambda x: b"\x93NUMPY", "error: "),
    ],
)
def test_a_mistake_in_the_script_is_one_line(made, tmp_path, content, why):
    write(made["conv"], tmp_path / "it")
    path, array = tmp_path / "image.npy", content(made["conv"].batch["image"])
    if isinstance(array, bytes):
        path.write_bytes(array)
    elif array is not None:
        np.save(path, array)
    status, out, (line,) = printed(tmp_path / "it", path)
    assert (status, out) == (1, [])
    assert re.search(why, line)


def test_the_script_takes_one_example_and_prints_labels(made, tmp_path):
    one = made["conv"]
    write(one, tmp_path / "it")
    path = tmp_path / "it" / card.NAME
    values = json.loads(path.read_text(encoding="utf-8"))
    names = [f"class {k}" for k in range(10)]
    path.write_text(json.dumps(values | {"kind": "labels", "classes": names}), encoding="utf-8")
    np.save(tmp_path / "image.npy", one.batch["image"][0])
    status, (_, row), _ = printed(tmp_path / "it", tmp_path / "image.npy")
    assert status == 0
    logits = np.asarray(one.outputs(one.plain)["outputs"], np.float64)[0]
    p = 1 / (1 + np.exp(-logits))
    order = [k for k in np.argsort(-p) if p[k] >= 0.5]
    assert row == ", ".join(f"class {k} {p[k]:.3f}" for k in order)
    path.unlink()
    status, _, (line,) = printed(tmp_path / "it", tmp_path / "image.npy")
    assert status == 1
    assert "No such file" in line


def test_onnx(made, tmp_path):
    pytest.importorskip("jax2onnx")
    from jaxdl.export.onnx_model import to_onnx

    one = made["conv"]
    (tmp_path / "model.onnx").write_bytes(to_onnx(one.programs["predict"], one.stored))
    for outputs in check.outputs_alone(tmp_path, one.batch, "onnx", (1, N)).values():
        assert check.error(outputs, one.outputs(one.plain)) <= 1e-5


@pytest.mark.parametrize(
    ("found", "wanted", "error"),
    [
        ({"y": [1.0, 2.0]}, {"y": [1.0, 4.0]}, 0.5),
        ({"y": [-np.inf, 2.0]}, {"y": [-np.inf, 2.0]}, 0.0),
        ({"y": [1.0, 2.0]}, {"y": [-np.inf, 2.0]}, np.inf),
        ({"y": [np.nan, 2.0]}, {"y": [1.0, 2.0]}, np.inf),
        ({"y": [1.0]}, {"y": [1.0, 2.0]}, np.inf),
        ({}, {"y": [1.0]}, np.inf),
        ({"y": [1, 2, 3, 4]}, {"y": [1, 2, 3, 5]}, 0.25),
        ({"y": [0.5]}, {"y": [0.0]}, 0.5),
    ],
)
def test_error(found, wanted, error):
    arrays = [{name: np.array(values) for name, values in one.items()} for one in (found, wanted)]
    assert check.error(*arrays) == error
