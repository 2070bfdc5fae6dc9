"""Weights to start from: safetensors files and run folders, which may be a stranger's."""

import json
import os
import shutil
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from jaxdl import parameter_groups
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.export import tensor_file, weights
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.tasks.supervised import eval_variables
from tests import tunable

ARRAYS = {"params/a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "b/bias": np.ones(2)}


def raw(header, content=b"", size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + content


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    arrays = ARRAYS | {"half": np.arange(3, dtype=jnp.bfloat16), "empty": np.zeros((0, 3), np.int8)}
    arrays["turned"] = np.arange(6.0).reshape(2, 3).T
    tensor_file.write(path, arrays, about="a test")
    found = tensor_file.read(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


DAMAGED = {
    "empty": b"",
    "short": b"\x01\x02",
    "header longer than the file": raw({}, size=2**40),
    "giant header": raw({}, size=2**63),
    "no JSON": raw(b"{" + b"[" * 10_000),
    "a list": raw([1, 2]),
    "truncated": raw({"a": entry(shape=(2,), offsets=(0, 8))}, b"1234"),
    "bytes too many": raw({"a": entry()}, b"12345678"),
    "overlapping": raw({"a": entry(), "b": entry()}, b"1234"),
    "other shape": raw({"a": entry(shape=(2, 2))}, b"1234"),
    "negative": raw({"a": entry(shape=(-1,))}, b"1234"),
    "giant shape": raw({"a": entry(shape=(2**40, 2**40))}, b"1234"),
    "unknown type": raw({"a": entry("F4")}, b"1234"),
    "a type that NumPy lacks": raw({"a": entry("F8_E4M3", offsets=(0, 1))}, b"1"),
    "a name twice": raw(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        b"12345678",
    ),
    "a name that controls a terminal": raw({"\x1b[2J": entry()}, b"1234"),
    "a long name": raw({"a" * 1001: entry()}, b"1234"),
    "an entry of another kind": raw({"a": 7}, b"1234"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_refused_in_one_line(kind, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(DAMAGED[kind])
    with pytest.raises(UserError, match="is not a whole safetensors file") as error:
        tensor_file.read(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_only_regular_files_are_read(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(ARRAYS))
    (tmp_path / "link.safetensors").symlink_to(path)
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("link", "pipe", "folder", "missing"):
        with pytest.raises(UserError, match="cannot be read"):
            weights.read(tmp_path / f"{name}.safetensors", {})
    with pytest.raises(UserError, match="cannot be read"):
        tensor_file.read(path, largest=50)


def test_names_have_their_collection_or_get_it(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(ARRAYS | {"batch_stats/n/mean": np.zeros(1)}))
    found = weights.read(path, {"params": {}})
    assert list(found.arrays) == ["batch_stats/n/mean", "params/a/kernel", "params/b/bias"]
    path.write_bytes(save(ARRAYS | {"params/b/bias": np.zeros(2)}))
    with pytest.raises(UserError, match="params/b/bias under two names"):
        weights.read(path, {})
    renamed = {"params/b/bias" if name == "b/bias" else name: a for name, a in ARRAYS.items()}
    path.write_bytes(save(renamed | {"batch_stats/n/mean": np.zeros(1)}))
    assert weights.read(path, {}).digest == found.digest
    path.write_bytes(save(renamed | {"batch_stats/n/mean": np.ones(1)}))
    assert weights.read(path, {}).digest != found.digest


def test_names_of_pytorch_are_converted(tmp_path):
    kernel, bias = np.float32([[1, 2, 3], [4, 5, 6]]), np.float32([7, 8, 9])
    like = {"params": {"Dense_0": {"kernel": kernel, "bias": bias}}}
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"0.weight": kernel.T.copy(), "0.bias": bias}))
    found = weights.read(path, like).arrays
    np.testing.assert_array_equal(found["params/Dense_0/kernel"], kernel)
    np.testing.assert_array_equal(found["params/Dense_0/bias"], bias)


@pytest.mark.parametrize("names", [("0.weight", "0.bias"), ("Dense_0/kernel", "Dense_0/bias")])
@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (np.int32([7, 8, 9]), "is of type int32: give weights in floating point"),
        (np.array([True, False, True]), "is of type bool"),
        (np.float32([7, np.nan, 9]), "holds nan: give weights that are finite in float32"),
        (np.float64([7, 8, -1e300]), r"holds -1e\+300"),
    ],
)
def test_weights_are_finite_floats(names, bad, why, tmp_path):
    kernel = np.float32([[1, 2, 3], [4, 5, 6]])
    like = {"params": {"Dense_0": {"kernel": kernel, "bias": np.zeros(3, np.float32)}}}
    first = kernel.T.copy() if "." in names[0] else kernel
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({names[0]: first, names[1]: bad}))
    with pytest.raises(UserError, match=f"{path}: .*bias {why}"):
        weights.read(path, like)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of short runs, with the variables that each evaluates at its best step."""
    found = {}
    for name, changes in (
        ("plain", {}),
        ("average", {"ema_decay": 0.5}),
        ("schedule_free", {"optimizer": "schedule_free", "freeze": "body/bias"}),
    ):
        folder = tmp_path_factory.mktemp("weights") / name
        config = tunable.Config(workdir=str(folder), num_steps=3, **changes)
        data = tunable.load(config)
        tunable.run(config)
        task = tunable.build(config, data.spec)
        shapes = jax.eval_shape(task.init, jax.random.key(0))
        one_device = sharding.replicated(sharding.mesh(config))
        like = sharding.with_sharding(shapes, one_device)
        saved = Checkpoints(folder / "checkpoints").restore(3, like, part=".state")
        found[name] = folder, saved.state
    return found


@pytest.mark.parametrize("name", ["plain", "average", "schedule_free"])
def test_a_run_gives_what_it_evaluates(name, runs):
    folder, state = runs[name]
    expected = parameter_groups.flatten(eval_variables(state))
    found, step = weights.of_run(folder)
    assert step == 3
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_allclose(found[path], leaf, rtol=1e-6, atol=1e-7, err_msg=path)
    if name != "plain":
        body = found["params/body/kernel"]
        assert not np.array_equal(body, state.params["body"]["kernel"])


def test_damaged_and_other_runs_are_refused(runs, tmp_path):
    shutil.copytree(runs["plain"][0], tmp_path / "run")
    with pytest.raises(UserError, match="is not a run folder, nor a file with the suffix"):
        weights.read(tmp_path / "missing", {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no checkpoint"):
        weights.read(tmp_path / "empty", {})
    path = next(
        p for p in (tmp_path / "run" / "checkpoints" / "3" / "state").rglob("*") if p.is_file()
    )
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(UserError, match=r"is damaged .*: give another --init_from"):
        weights.read(tmp_path / "run", {})
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "3")
    assert weights.of_run(tmp_path / "run")[1] == 2  # the best is gone: the newest counts
    target = tmp_path / "run" / "checkpoints" / "2" / "manifest.json"
    target.rename(tmp_path / "elsewhere.json")
    target.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(UserError, match="symbolic link"):
        weights.read(tmp_path / "run", {})


def test_runs_of_other_tasks_have_no_weights():
    leaves = {".state.step": jnp.zeros(()), ".state.generator['params']['a']": jnp.zeros(2)}
    assert weights._evaluated(leaves) == {}
    hostile = {".state.params['a/b']['c']": jnp.zeros(1), ".state.params[0]": jnp.zeros(1)}
    assert weights._evaluated(hostile) == {}
