"""Processes that a command starts import nothing from the folder that the user is in."""

import os
import subprocess
import sys

import pytest

from experiments import iris_mlp
from jaxdl import import_path
from tests import forks


def test_own_folders_come_first_and_the_current_one_only_if_it_is_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(("/a", "", "b")))
    here = str(tmp_path)
    expected = ["/tree", "/a", str(tmp_path / "b")]
    assert import_path.environment("/tree", "")["PYTHONPATH"].split(os.pathsep) == expected
    monkeypatch.syspath_prepend(here)
    expected.insert(1, here)
    assert import_path.environment("/tree")["PYTHONPATH"].split(os.pathsep) == expected
    monkeypatch.delenv("PYTHONPATH")
    assert import_path.environment()["PYTHONPATH"] == here


@pytest.mark.parametrize(
    "words",
    [
        ["reproduce", ".", "--workdir=../again"],
        ["latency", ".", "--turns=1", "--calls=1", "--batch_sizes=1"],
    ],
)
def test_a_command_in_a_strangers_run_folder_executes_none_of_it(words, tmp_path):
    folder = tmp_path / "run"
    iris_mlp.run(iris_mlp.Config(num_steps=2, workdir=str(folder)))
    for name in ("numpy", "jax", "jaxdl", "experiments", "json", "absl", "optuna", "matplotlib"):
        (folder / f"{name}.py").write_text("open('../executed', 'w')", encoding="utf-8")
    path = os.pathsep.join(filter(None, (forks.ROOT, os.environ.get("PYTHONPATH"))))
    # A process that has another seed of hashes is no fork, which would have imported it all before.
    environment = os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-P", "-m", "jaxdl", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "executed").exists()
