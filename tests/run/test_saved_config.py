"""A bit of config.json flips: no figure changes, and nothing is refused that a checkpoint holds."""

import json
import random
import shutil

import pytest

from experiments import mnist_cnn
from experiments.benchmarks import publish
from jaxdl import saved_config
from jaxdl.__main__ import run as command
from jaxdl.errors import UserError
from jaxdl.run import logger, run_folder
from jaxdl.tools.evaluate import evaluate

FLAGS = {
    "dataset": "synthetic",
    "image_size": 8,
    "num_steps": 4,
    "batch_size": 16,
    "eval_every": 2,
    "checkpoint_every": 2,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    mnist_cnn.run(mnist_cnn.Config(workdir=str(folder), **FLAGS))
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_bit_that_decides_a_figure_is_the_checkpoints(copy, capsys):
    path = copy / "config.json"
    content = path.read_bytes()
    wanted = saved_config.identity(run_folder.open_run(copy).config)
    chance = random.Random(0)
    for bit in chance.sample(range(8 * len(content)), 300):
        path.write_bytes(flipped(content, bit))
        assert saved_config.identity(run_folder.open_run(copy).config) == wanted, bit
    path.unlink()
    assert saved_config.identity(run_folder.open_run(copy).config) == wanted
    capsys.readouterr()


def changed(folder, **values):
    path = folder / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8"
    )


def test_evaluation_is_of_the_run_that_was_and_says_so(copy, capsys):
    figures = evaluate(run_folder.open_run(copy), "validation")
    changed(copy, seed=1, activation="tanh", validation_fraction=0.2, dtype="bfloat16")
    capsys.readouterr()
    assert evaluate(run_folder.open_run(copy), "validation") == figures
    (notice,) = (x for x in capsys.readouterr().err.splitlines() if "differs" in x)
    assert "seed=1 there, 0 here" in notice


def test_the_same_command_goes_on_under_a_flipped_config_and_writes_it_anew(copy, capsys):
    changed(copy, seed=1)
    mnist_cnn.run(mnist_cnn.Config(workdir=str(copy), **FLAGS))
    assert "seed=1 there, 0 here" in capsys.readouterr().err
    assert json.loads((copy / "config.json").read_text(encoding="utf-8"))["seed"] == 0
    with pytest.raises(UserError, match="seed=0 there, 2 here"):
        mnist_cnn.run(mnist_cnn.Config(workdir=str(copy), seed=2, **FLAGS))


def test_a_run_without_checkpoints_has_its_file_alone(copy):
    shutil.rmtree(copy / "checkpoints")
    changed(copy, seed=1)
    assert run_folder.open_run(copy).config.seed == 1
    changed(copy, seed="x")
    with pytest.raises(UserError, match="seed='x': not a int"):
        run_folder.open_run(copy)


@pytest.mark.parametrize("place", [{"data_dir": 5}, {"dry_run": "x"}, {"join_timeout": 0}])
def test_a_place_that_cannot_be_has_its_default(place, copy, capsys):
    changed(copy, **place)
    (name,) = place
    assert getattr(run_folder.open_run(copy).config, name) == getattr(mnist_cnn.Config(), name)
    assert f"{name}" in capsys.readouterr().err


def test_a_table_shows_what_the_checkpoints_hold(copy, trained, tmp_path, capsys):
    changed(copy, learning_rate=0.5)
    command(["report", str(trained), str(copy), f"--output={tmp_path / 'x.png'}"])
    out, err = capsys.readouterr()
    assert "learning_rate" not in out
    assert "learning_rate=0.5 there" in err


def test_a_summary_that_was_changed_is_not_published(copy, tmp_path):
    path = copy / "summary.json"
    content = path.read_bytes()
    whole = logger.read_summary(copy)
    chance = random.Random(1)
    for bit in chance.sample(range(8 * len(content)), 300):
        path.write_bytes(flipped(content, bit))
        try:
            found = logger.read_summary(copy)
        except UserError:
            continue
        # Of a bit in the digest's own name nothing is known, and the figures are still those.
        assert {name: found.get(name) for name in whole} == whole, bit
    path.write_bytes(content.replace(b'"step": 4', b'"step": 5'))
    with pytest.raises(UserError, match="is not what the run wrote"):
        publish.add_run(copy, tmp_path / "results")
