"""The commands `export` and `latency`: what they write, and what they refuse."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxdl import cli, files
from jaxdl.__main__ import run as command
from jaxdl.errors import TrainingError, UserError
from jaxdl.export import card, folder
from jaxdl.run import logger
from jaxdl.tools import export_check, latency, latency_side
from tests.export.models import train
from tests.small import DESCRIBED
from tests.small import Config as SmallConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a small perceptron."""
    from experiments import iris_mlp

    path = tmp_path_factory.mktemp("runs") / "iris"
    iris_mlp.run(iris_mlp.Config(num_steps=20, workdir=str(path)))
    return path


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """Its export, quantized and checked."""
    path = tmp_path_factory.mktemp("exports") / "iris"
    command(["export", str(run), f"--output={path}", "--quantize=int8", "--check"])
    return path


def test_an_export_describes_itself(run, exported):
    names = ["card.json", "predict.py", "predict.stablehlo", "weights.safetensors"]
    assert sorted(os.listdir(exported)) == names
    written = card.read(exported)
    for name in names[1:]:
        content = (exported / name).read_bytes()
        assert written["files"][name] == hashlib.sha256(content).hexdigest()
    assert written["experiment"] == "experiments.iris_mlp"
    assert written["kind"] == "logits"
    assert written["classes"] == ["not setosa", "setosa"]
    program = written["programs"]["predict"]
    assert program["inputs"] == {"x": {"shape": ["b", 2], "dtype": "float32"}}
    assert program["outputs"] == {"outputs": {"shape": ["b", 1], "dtype": "float32"}}
    assert written["weights"]["quantize"] == "int8"
    assert written["weights"]["bytes"] < written["weights"]["float32_bytes"]
    assert "workdir" not in written["config"]
    summary = logger.read_summary(run)
    (test,) = [record for record in written["metrics"] if record["split"] == "test"]
    assert test["accuracy"] == summary["best/test/accuracy"]
    assert test["step"] == written["checkpoint"]["step"] == summary["best_step"]


def test_the_script_of_one_logit_prints_both_classes(exported, tmp_path):
    np.save(tmp_path / "x.npy", np.array([[1.4, 0.2], [5.0, 1.9]]))
    words = [sys.executable, "-I", str(exported / "predict.py"), str(tmp_path / "x.npy")]
    out = subprocess.run(words, capture_output=True, encoding="utf-8", check=True).stdout
    for line in out.splitlines()[1:]:
        (first, p), (second, q) = (pair.rsplit(" ", 1) for pair in line.split(", "))
        assert {first, second} == {"setosa", "not setosa"}
        assert float(p) >= float(q)
        assert float(p) + float(q) == pytest.approx(1, abs=2e-3)


def test_the_folder_must_be_new(run, exported):
    with pytest.raises(UserError, match="is not empty: give a new folder"):
        command(["export", str(run), f"--output={exported}"])


def test_a_failed_check_leaves_nothing(run, tmp_path, monkeypatch):
    found = iter([0.0, 1e-3, 1e-3, 1e-5])  # of the weights, both batch sizes, and of the run itself
    monkeypatch.setattr(export_check.check, "error", lambda outputs, expected: next(found))
    with pytest.raises(TrainingError, match="differs by more than 1e-05"):
        command(["export", str(run), f"--output={tmp_path / 'it'}", "--check"])
    assert not list(tmp_path.iterdir())


def test_an_export_may_be_as_inexact_as_the_run_itself(run, tmp_path, monkeypatch, capsys):
    found = iter([0.0, 1e-3, 0.0, 3e-4])
    monkeypatch.setattr(export_check.check, "error", lambda outputs, expected: next(found))
    command(["export", str(run), f"--output={tmp_path / 'it'}", "--check"])
    assert "the run itself, batch sizes (1, 77): largest relative error 3.0e-04" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("--format=tensorflow", "give one or more of stablehlo"),
        ("--format=", "give one or more of stablehlo"),
        ("--dtype=float16", "give one of float32, bfloat16"),
        ("--quantize=int4", "give one of int8"),
        ("--quantize=int8 --format=torch", "--quantize=int8 with --format=torch, whose weights"),
        ("--dtype=bfloat16 --format=stablehlo,torch", "float32: leave --dtype out, or torch"),
    ],
)
def test_unknown_choices(flag, why, run, tmp_path):
    with pytest.raises(UserError, match=why):
        command(["export", str(run), f"--output={tmp_path / 'it'}", *flag.split()])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_files_of_weights_are_read_back(run, tmp_path, monkeypatch, capsys, form):
    name = {"torch": "torch.safetensors", "safetensors": "weights.safetensors"}[form]
    words = ["export", str(run), f"--format={form}", "--check"]
    command([*words, f"--output={tmp_path / 'a'}"])
    assert f"{name}, read back: largest relative error 0.0e+00" in capsys.readouterr().out
    read = export_check.tensor_file.read
    monkeypatch.setattr(
        export_check.tensor_file, "read", lambda path: {n: 2 * a for n, a in read(path).items()}
    )
    with pytest.raises(TrainingError, match=f"{name}, read back: .*error 1.0e.00, more than 1e-06"):
        command([*words, f"--output={tmp_path / 'b'}"])
    assert not (tmp_path / "b").exists()


def test_weights_for_pytorch_with_statistics_are_read_back(tmp_path, capsys):
    flags = ["--dataset=synthetic", "--image_size=8", "--num_steps=1", "--batch_size=4"]
    train("mnist_cnn", tmp_path / "run", *flags, "--norm=batch")
    path = tmp_path / "it"
    command(["export", str(tmp_path / "run"), "--format=torch", "--check", f"--output={path}"])
    assert "read back: largest relative error 0.0e+00" in capsys.readouterr().out


def test_onnx_computes_in_float32(run, tmp_path):
    arguments = ["export", str(run), f"--output={tmp_path / 'it'}", "--format=onnx"]
    with pytest.raises(UserError, match="give --dtype=float32"):
        command([*arguments, "--dtype=bfloat16"])


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    contents = {"a": b"1", "b": b"2"}

    def fail(path):
        assert {p.name for p in path.iterdir()} == {"a", "b"}
        assert not (tmp_path / "deep" / "it").exists()
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        folder.write(tmp_path / "deep" / "it", contents, fail)
    assert not list((tmp_path / "deep").iterdir())
    folder.write(tmp_path / "deep" / "it", contents)
    assert (tmp_path / "deep" / "it" / "b").read_bytes() == b"2"
    (tmp_path / "empty").mkdir()
    folder.write(tmp_path / "empty", contents)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="not a folder"):
        folder.write(tmp_path / "file", contents)


def test_the_guarantee_ends_half_a_year_after_the_release():
    assert card.guarantee("0.10.2")["until"] == "2026-12-17"
    assert card.guarantee("0.11.0")["until"] == "2027-01-16"
    assert card.guarantee("9.9")["until"] is None


def test_metrics_are_those_of_the_checkpoint(tmp_path):
    made = logger.RunLog(tmp_path, SmallConfig(), DESCRIBED, [])
    made.close()
    values = {"test/loss": 2.0, "step": 10, "best_step": 5, "best/validation/loss": 1.0}
    made.summarize(values | {"state_sha256": "x"})
    (tmp_path / "evaluations").mkdir()
    text = json.dumps({"step": 10, "split": "validation", "loss": 3.0, "name": "x"})
    (tmp_path / "evaluations" / "validation-10.json").write_text(text, encoding="utf-8")
    assert card.run_metrics(tmp_path, 5) == [{"split": "validation", "step": 5, "loss": 1.0}]
    assert card.run_metrics(tmp_path, 10) == [
        {"split": "test", "step": 10, "loss": 2.0},
        {"split": "validation", "step": 10, "loss": 3.0},
    ]
    assert card.run_metrics(tmp_path, 7) == []


def test_latency_of_each_form(run, exported, capsys):
    options = ["--batch_sizes=1,3", "--turns=2", "--calls=3"]
    for path, form in ((run, "jaxdl"), (exported, "stablehlo")):
        command(["latency", str(path), *options])
        head, *rows = capsys.readouterr().out.splitlines()
        assert head.split()[0] == "form"
        assert [row.split()[:2] for row in rows] == [[form, "1"], [form, "3"]]
        for row in rows:
            p50, p90, p99, speed, peak = (float(v.replace(",", "")) for v in row.split()[2:])
            assert 0 < p50 <= p90 <= p99
            assert speed > 0
            assert peak > 10


def test_summary():
    row = latency.summary("x", 4, np.array([0.001] * 98 + [0.002, 0.1]), 7)
    assert row["p50_ms"] == pytest.approx(1)
    assert row["p90_ms"] == pytest.approx(1)
    assert 1.9 < row["p99_ms"] < 4
    assert row["examples_per_second"] == pytest.approx(4000)


@pytest.mark.parametrize(
    "flag", ["--batch_sizes=0", "--batch_sizes=x", "--turns=0", "--calls=0", "--batch_sizes=1,,2"]
)
def test_latency_refuses(flag, exported):
    with pytest.raises(UserError, match=flag.split("=")[0]):
        command(["latency", str(exported), flag])


# An export may be a stranger's.


@pytest.fixture
def hostile(exported, tmp_path):
    """A copy of the export, and a function that changes its card."""
    path = tmp_path / "hostile"
    path.mkdir()
    for source in exported.iterdir():
        (path / source.name).write_bytes(source.read_bytes())

    def change(**values):
        content = json.loads((path / card.NAME).read_text(encoding="utf-8")) | values
        (path / card.NAME).write_text(json.dumps(content), encoding="utf-8")

    return path, change


@pytest.mark.parametrize("name", ["predict.stablehlo", "weights.safetensors"])
def test_a_changed_file(name, hostile):
    path, _ = hostile
    content = bytearray((path / name).read_bytes())
    content[-1] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(UserError, match="its SHA-256 is another"):
        latency_side.load_stablehlo({"folder": str(path)})


def test_a_folder_that_cannot_be_measured_is_one_line(hostile, tmp_path, capfd):
    path, _ = hostile
    (path / "weights.safetensors").write_bytes(b"x")
    for folder_, why in (
        (path, "its SHA-256 is another"),
        (tmp_path / "absent", "absent"),
        (tmp_path, "config.json"),
    ):
        assert cli.guard(lambda folder_=folder_: command(["latency", str(folder_)])) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert why in line


@pytest.mark.parametrize("name", ["../predict.stablehlo", "/etc/passwd", "", ".x", None])
def test_a_file_elsewhere(name, hostile):
    path, change = hostile
    change(programs={"predict": {"file": name, "inputs": {}}})
    with pytest.raises(UserError, match="not a card of format"):
        latency_side.load_stablehlo({"folder": str(path)})


def test_a_link(hostile):
    path, _ = hostile
    (path / "predict.stablehlo").rename(path / "elsewhere")
    (path / "predict.stablehlo").symlink_to(path / "elsewhere")
    with pytest.raises(UserError, match="symbolic link"):
        latency_side.load_stablehlo({"folder": str(path)})


def test_damaged_bytes_with_their_digest(hostile):
    path, change = hostile
    for name, match in (
        ("predict.stablehlo", "not a program"),
        ("weights.safetensors", "not a whole"),
    ):
        whole = (path / name).read_bytes()
        (path / name).write_bytes(b"x" * 100)
        digests = {p.name: files.sha256(p).hexdigest() for p in path.iterdir()}
        change(files=digests)
        with pytest.raises(UserError, match=match):
            latency_side.load_stablehlo({"folder": str(path)})
        (path / name).write_bytes(whole)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"format": 1}'])
def test_a_card_that_is_none(text, hostile):
    path, _ = hostile
    (path / card.NAME).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="card"):
        card.read(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": ["b", 10**9], "dtype": "float32"},
        {"shape": ["b", -1], "dtype": "float32"},
        {"shape": ["b"], "dtype": "object"},
    ],
)
def test_inputs_without_bound(entry):
    with pytest.raises(UserError, match="give a smaller --batch_sizes"):
        latency_side.make_batch({"x": entry}, 4)


def test_native_code_is_refused(hostile):
    import jax

    from jaxdl.export import stablehlo

    path, change = hostile
    lower = jax.export.export(jax.jit(lambda w, b: jax.numpy.linalg.eigh(b["x"].T @ b["x"])[0]))
    content = stablehlo.serialize(lower({}, {"x": jax.ShapeDtypeStruct((3, 2), "float32")}))
    (path / "predict.stablehlo").write_bytes(content)
    change(files={p.name: files.sha256(p).hexdigest() for p in path.iterdir()})
    with pytest.raises(UserError, match="calls native code"):
        latency_side.load_stablehlo({"folder": str(path)})
