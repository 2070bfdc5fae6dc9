"""Preparable data sets, from an empty folder to a trained step, and by two processes at once."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdl import cli
from jaxdl.__main__ import run as command
from jaxdl.data import prepare, tfds
from jaxdl.flags import parse_flags
from tests.data import official

ROOT = Path(__file__).parents[2]
TINY = ["--num_steps=1", "--batch_size=4"]
VGG = ["--depth=11", "--width_multiplier=0.02"]
TRANSLATE = ["--layers=1", "--features=8", "--length=8", "--widths=1", "--vocabulary=300"]
# The experiment of each, a flag that makes it small, and what makes its archives.
STARTS = {
    "mnist": ("mnist_lenet", [], lambda f: official.mnist_files(f)[0]),
    "fashion_mnist": ("mnist_cnn", [], lambda f: official.mnist_files(f)[0]),
    "cifar10": ("cifar_vgg", VGG, lambda f: official.cifar_file(f, "cifar10")[0]),
    "cifar100": (
        "cifar_cnn",
        ["--image_size=8"],
        lambda f: official.cifar_file(f, "cifar100", 20)[0],
    ),
    "imdb_reviews": (
        "imdb_rnn",
        ["--layers=1", "--features=8", "--length=8", "--widths=1"],
        lambda f: official.reviews_file(f, each=9),
    ),
    "tiny_shakespeare": (
        "shakespeare_lm",
        ["--layers=1", "--features=8", "--length=8"],
        official.plays_file,
    ),
    "multi30k": ("multi30k_transformer", TRANSLATE, None),
}


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "server").mkdir()
    return tmp_path


def serve(name, folder, monkeypatch):
    server = folder / "server"
    make = STARTS[name][2]
    if make is None:
        monkeypatch.setattr(prepare, "MULTI30K", official.multi30k_files(server, 100))
        monkeypatch.setattr(prepare, "MULTI30K_URL", server.as_uri())
    else:
        pins = official.pins(make(server), server.as_uri())
        monkeypatch.setattr(tfds, "downloads", lambda asked: pins)


def test_every_name_is_tried():
    assert list(STARTS) == list(prepare.NAMES)


@pytest.mark.parametrize("name", STARTS)
def test_the_first_start_trains(name, empty, monkeypatch):
    serve(name, empty, monkeypatch)
    experiment, flags, _ = STARTS[name]
    module = importlib.import_module(f"experiments.{experiment}")
    places = [f"--data_dir={empty / 'data'}", f"--workdir={empty / 'run'}"]
    given = [f"--dataset={name}", *TINY, *flags, *places]
    assert module.run(parse_flags(module.Config, given))["step"] == 1
    left = {path.name for path in (empty / "data").rglob(".*")}
    assert left == set()
    said = json.loads((empty / "run" / "config.json").read_text(encoding="utf-8"))
    assert said["dataset"] == name


@pytest.mark.parametrize("name", ["mnist", "tiny_shakespeare"])
def test_what_is_prepared_before_is_not_fetched_again(name, empty, monkeypatch, capsys):
    serve(name, empty, monkeypatch)
    given = ["prepare", name, f"--data_dir={empty / 'data'}"]
    command(given)
    folder = Path(capsys.readouterr().out.strip())
    assert folder.parent == empty / "data" / name
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(tfds, "downloads", None)
    command(given)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_folder_that_lacks_a_file_is_said_and_not_written_over(empty, monkeypatch, capsys):
    serve("mnist", empty, monkeypatch)
    given = ["prepare", "mnist", f"--data_dir={empty / 'data'}"]
    command(given)
    folder = empty / "data" / "mnist" / "3.0.1"
    (folder / "features.json").unlink()
    before = sorted(folder.parent.rglob("*"))
    assert cli.guard(lambda: command(given)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert str(folder) in error
    assert "delete" in error
    assert sorted(folder.parent.rglob("*")) == before


def test_pairs_of_processes_at_once(tmp_path):
    """Ten of the pairs that `python -m tests.data.races` makes hundreds of."""
    words = [sys.executable, "-W", "ignore", "-m", "tests.data.races", "--pairs=10"]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "10 pairs, 0 of them" in done.stdout
