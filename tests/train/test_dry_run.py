import dataclasses
import importlib
from collections import Counter

import jax
import numpy as np
import pytest

from experiments import mnist_lenet
from experiments.benchmarks.accelerator.short import SHORT
from jaxdl import tree
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags
from jaxdl.run.checkpoint import MOST_CHECKPOINTS
from jaxdl.train import dry_run, flops, step_spec, train_step
from tests.train.test_loop import train

LENET = mnist_lenet.Config(dataset="embedded", batch_size=32, num_epochs=2, dry_run=True)


def test_a_dry_run_writes_nothing_and_counts_what_the_run_has(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dry_run, "TIMED", 0.1)
    config = dataclasses.replace(LENET, workdir=str(tmp_path / "run"))
    found = mnist_lenet.run(config)
    assert list(tmp_path.iterdir()) == []
    assert found["parameters"] == 61_706  # the paper's network, in every text
    assert found["steps"] == 2 * (1294 // 32)
    # Multiplications of the paper's layers, twice over, forwards; the gradients are some two more.
    forward = 2 * 32 * (28 * 28 * 25 * 6 + 100 * 150 * 16 + 400 * 120 + 120 * 84 + 84 * 10)
    assert 2.5 * forward < found["flops_per_step"] < 4 * forward
    assert found["peak_memory_mb"] > 32 * 28 * 28 * 6 * 4 / 1e6
    table = capsys.readouterr().err
    assert "ConvPool_0" in table
    assert "5x5x1x6" in table


def test_the_disk_is_what_checkpoints_take(small, tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run, "TIMED", 0.1)
    found = train(small, workdir=str(tmp_path / "dry"), dry_run=True)
    train(small, workdir=str(tmp_path / "run"))
    kept = (tmp_path / "run" / "checkpoints").iterdir()
    largest = max(sum(f.stat().st_size for f in one.rglob("*") if f.is_file()) for one in kept)
    # Orbax writes some files around each array, which is most where all are small.
    assert 1e6 * found["checkpoints_mb"] / MOST_CHECKPOINTS == pytest.approx(largest, rel=0.9)
    assert not (tmp_path / "dry").exists()


def test_warns_where_memory_and_disk_are_too_small(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dry_run, "TIMED", 0.1)
    monkeypatch.setattr(sharding, "memory", lambda mesh: [1000.0])
    train(small, workdir=str(tmp_path / "run"), dry_run=True)
    assert "warning: memory: 0.00 GB needed, 0.00 GB free" in capsys.readouterr().err


def test_the_table_of_layers():
    counts = Counter(
        {"Net/Dense_0": 750_000, "Net/Dense_0/inner": 150_000, "Net": 50_000, "": 50_000}
    )
    params = {
        "params['Dense_0']['kernel']": np.zeros((3, 4)),
        "params['Dense_0']['bias']": np.zeros(4),
    }
    header, dense, rest = (line.split() for line in dry_run.layers(counts, params))
    assert header[0] == "layer"
    assert dense == ["Dense_0", "3x4", "4", "16", "0.9", "90.0"]
    assert rest == ["(the", "rest)", "0", "0.1", "10.0"]


@pytest.mark.parametrize(
    "name", ["cifar_vit", "imdb_rnn", "shakespeare_lm", "multi30k_seq2seq", "multi30k_transformer"]
)
def test_every_kernel_has_its_operations(name):
    module = importlib.import_module(f"experiments.{name}")
    config = parse_flags(module.Config, SHORT[name])
    spec = module.load(config).spec
    task = module.build(config, spec)
    state = jax.eval_shape(task.init, jax.random.key(0))
    counts = flops.count(jax.make_jaxpr(task.step)(state, spec.example(config.batch_size)))
    table = [row.split() for row in dry_run.layers(counts, tree.trained(state))]
    kernels = [path for path in tree.trained(state) if path.endswith("['kernel']")]
    assert len(kernels) > 3
    for path in kernels:
        layer = "/".join(part.strip("]'") for part in path.split("['")[1:-1])
        (row,) = [row for row in table if row[0] == layer]
        assert float(row[-2].replace(",", "")) > 0, layer
    assert sum(float(row[-1]) for row in table[1:]) == pytest.approx(100, abs=0.05 * len(table))


def test_the_table_names_what_has_no_parameters():
    counts = Counter({"Net/a": 500, "Net/a/b": 400, "Net/c": 1, "": 99})
    table = [line.split() for line in dry_run.layers(counts, {"params['a']['b']['w']": np.ones(2)})]
    assert [row[0] for row in table] == ["layer", "a", "a/b", "(the"]
    assert [row[-1] for row in table[1:]] == ["50.0", "40.0", "10.0"]
    counts = Counter({"Net/a/b": 99_700, "Net/c": 100, "": 200})
    table = [line.split() for line in dry_run.layers(counts, {"params['a']['b']['w']": np.ones(2)})]
    assert [row[-1] for row in table[1:]] == ["99.7", "0.3"]  # what is left is counted once


def test_the_share_of_a_known_peak():
    class Device:
        device_kind = "NVIDIA H100 80GB HBM3"

    assert flops.share(989e12, Device(), 4)["share_of_peak"] == pytest.approx(0.25)
    Device.device_kind = "NVIDIA L40"
    assert "share_of_peak" not in flops.share(1e12, Device(), 1)
    Device.device_kind = "cpu"
    assert flops.share(1e9, Device(), 1) == {"flops_per_second": 1e9}


def test_a_profile_is_of_the_steps_named(small, tmp_path, capsys):
    folder = tmp_path / "run"
    whole = train(small, workdir=str(tmp_path / "whole"))
    traced = train(small, workdir=str(folder), profile="3:5")
    assert list((folder / "profile").rglob("*.xplane.pb"))
    assert f"trace in {folder}/profile" in capsys.readouterr().err
    assert traced["state_sha256"] == whole["state_sha256"]


def test_a_profile_after_the_end_is_refused(small, tmp_path):
    with pytest.raises(UserError, match="--profile=99999:100000 begins after the last of"):
        train(small, workdir=str(tmp_path / "run"), profile="99999:100000")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("steps", ["5", "5:", "a:b", "7:3", "3:3", "-1:4", "1:2:3", ":"])
def test_a_profile_that_is_not_two_steps(steps, small):
    with pytest.raises(UserError, match="give START:STOP"):
        small.Config(profile=steps)


def test_the_log_shows_speed_and_the_summary_has_it(small, tmp_path, capsys):
    summary = train(small, workdir=str(tmp_path / "run"), num_steps=12, log_every=4)
    assert "examples/s" in capsys.readouterr().err
    flops_an_example = summary["flops_per_second"] / summary["examples_per_second"]
    assert 1000 < flops_an_example < 1e6


def test_checkpoints_are_in_the_time(small, tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run, "TIMED", 0.1)
    monkeypatch.setattr(dry_run, "_seconds_to_save", lambda *_: 1000.0)
    config = {"workdir": str(tmp_path / "dry"), "dry_run": True, "num_steps": 13}
    for every, saves in ((0, 3), (4, 4)):  # an epoch has six steps
        found = train(small, **config, checkpoint_every=every)
        assert saves == pytest.approx(found["seconds_to_finish"] / 1000, abs=0.5)


def test_a_checkpoint_is_timed(small, capsys):
    config = small.Config(batch_size=16)
    mesh = sharding.mesh(config)
    data = small.load(config)
    program = train_step.compile_step(step_spec.step_spec(small.build, config, data, mesh))
    numbers = step_spec.device_operands(config, data.spec, mesh)
    carry = program.start(numbers, jax.random.key(0))
    assert dry_run._seconds_to_save(carry, 1, mesh, 1.0) > 0
    assert dry_run._seconds_to_save(carry, 10**18, mesh, 1.0) == 0
    assert "no room in" in capsys.readouterr().err
