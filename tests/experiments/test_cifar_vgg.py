"""The real experiment, shrunk: killed and resumed, replayed, evaluated again, misused."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments import cifar_vgg
from jaxdl import cli, files
from jaxdl.__main__ import run as command
from jaxdl.flags import parse_flags


def start(*flags):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.cifar_vgg", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    flags = [
        *("--dataset=synthetic", "--depth=11", "--width_multiplier=0.05", "--batch_size=20"),
        *("--num_steps=6", "--eval_every=3", "--checkpoint_every=2", "--log_every=2"),
        *("--cutout=4", "--mixup=0.2", "--clip_norm=1.0"),
    ]
    folder = tmp_path_factory.mktemp("vgg") / "run"
    config = parse_flags(cifar_vgg.Config, [*flags, f"--workdir={folder}"])
    return flags, folder, cifar_vgg.run(config)


def test_sigterm_while_compiling_leaves_a_checkpoint(whole, tmp_path):
    flags, _, _ = whole
    process = start(*flags, f"--workdir={tmp_path / 'run'}")
    while not (tmp_path / "run" / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143, err
    assert "goes on" in err
    assert list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


def test_the_flagfile_replays_a_run(whole, tmp_path):
    _, folder, summary = whole
    flags = [f"--flagfile={folder / 'flags.txt'}", f"--workdir={tmp_path / 'run'}"]
    found = cifar_vgg.run(parse_flags(cifar_vgg.Config, flags))
    assert found["state_sha256"] == summary["state_sha256"]


@pytest.mark.parametrize(("checkpoint", "prefix"), [("best", "best/test"), ("newest", "test")])
def test_evaluate_gives_the_same_figure_to_the_last_digit(checkpoint, prefix, whole, capsys):
    _, folder, summary = whole
    command(["evaluate", str(folder), f"--checkpoint={checkpoint}", "--split=test"])
    found = dict(line.split(" = ") for line in capsys.readouterr().out.splitlines())
    assert float(found["accuracy"]) == summary[f"{prefix}/accuracy"]
    assert float(found["loss"]) == summary[f"{prefix}/loss"]
    assert (folder / "evaluations" / f"test-{found['step']}-confusion.png").exists()


def test_the_default_folder_and_a_relative_one_work(whole, tmp_path, monkeypatch, capsys):
    flags, _, summary = whole
    monkeypatch.chdir(tmp_path)
    found = cifar_vgg.run(parse_flags(cifar_vgg.Config, flags))
    assert found["state_sha256"] == summary["state_sha256"]
    (folder,) = (tmp_path / "runs" / "cifar_vgg").iterdir()
    command(["evaluate", str(folder.relative_to(tmp_path)), "--checkpoint=newest"])
    assert f"accuracy = {summary['test/accuracy']}" in capsys.readouterr().out


def test_evaluate_refuses(whole, tmp_path, capsys):
    _, folder, _ = whole
    for arguments in (["--checkpoint=5"], ["--checkpoint=worst"]):
        with pytest.raises(cli.UserError, match="--checkpoint="):
            command(["evaluate", str(folder), *arguments])
    for name in ("os", "experiments.nothing", "experiments", "../x"):
        values = files.read_json(folder / "config.json") | {"experiment": name}
        (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
        with pytest.raises(cli.UserError):
            command(["evaluate", str(tmp_path)])


def test_bfloat16_computes_and_keeps_float32_parameters(whole):
    config = parse_flags(cifar_vgg.Config, [*whole[0], "--dtype=bfloat16"])
    data = cifar_vgg.load(config)
    task = cifar_vgg.build(config, data.spec)
    batch = {name: array[:20] for name, array in data.train.items()} | {"mask": np.ones(20, "f4")}
    before = jax.eval_shape(task.init, jax.random.key(0))
    after, _ = jax.eval_shape(task.step, before, batch)
    for state in (before, after):
        assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float32")}
    program = str(jax.make_jaxpr(task.evaluate)(before, batch))
    kinds = re.findall(r"(\w+)\[[^\]]*\] = convolution_forward", program)
    assert set(kinds) == {"bf16"}


@pytest.mark.parametrize(
    "flag", ["--learning_rate=nan", "--dataset=nothing", "--nonsense=1", "--workdir=/proc/x"]
)
def test_a_mistake_is_one_line_status_2_and_writes_nothing(flag, tmp_path, monkeypatch):
    root = os.getcwd()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", root)
    first = [] if flag.startswith("--dataset") else ["--dataset=synthetic"]
    process = start(*first, flag)
    out, err = process.communicate()
    assert process.returncode == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert not list(tmp_path.iterdir())
