"""Over forty crafted data folders: one line, status 2, nothing imported, started or written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data import hostile, hostile_cases, hostile_descriptions

ROOT = Path(__file__).parents[2]
PROGRESS = ("decoding ", "downloading ")


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    words = [sys.executable, "-m", "tests.data.hostile", folder / "result.json", folder]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, encoding="utf-8")
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads((folder / "result.json").read_text(encoding="utf-8")), process.stderr


def test_a_whole_folder_comes_as_far_as_its_size(tried):
    assert "--batch_size" in tried[0]["whole"]["err"]


@pytest.mark.parametrize("name", hostile.CASES)
def test_crafted_folders(name, tried):
    found = tried[0][name]
    assert found["status"] == 2, found["err"][-2000:]
    lines = [line for line in found["err"].split("\n")[:-1] if not line.startswith(PROGRESS)]
    assert len(lines) == 1, found["err"]
    assert lines[0].startswith("error: ")
    assert len(lines[0]) < 1000
    assert found["err"].replace("\n", "").isprintable()
    assert found["out"] == ""
    assert found["events"] == []
    assert found["left"] == ["data", hostile.SECRET]
    assert not found["marked"]


def test_there_are_over_forty():
    assert len(hostile.CASES) > 40


def test_no_bomb_takes_the_memory(tried):
    assert tried[0]["memory"] < 2_000_000  # kB, of all cases; an image of one took 3 GB


def test_libraries_in_c_say_nothing(tried):
    assert tried[1] == ""


def test_a_module_beside_the_data_is_not_imported(tmp_path):
    """As `python -m` is started, with the current folder on its path."""
    (tmp_path / "data" / "payload").mkdir(parents=True)
    code = f"open({str(tmp_path / 'evil')!r}, 'w')\nclass Feature: pass\n"
    (tmp_path / "data" / "payload" / "evil.py").write_text(code, encoding="utf-8")
    folder = tmp_path / "data" / "pictures" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "features.json").write_text(
        json.dumps(hostile_descriptions.nested(hostile_cases.EVIL)), encoding="utf-8"
    )
    plain = {"name": "pictures", "version": "1.0.0", "fileFormat": "array_record", "splits": []}
    (folder / "dataset_info.json").write_text(json.dumps(plain), encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    words = [sys.executable, "-m", "experiments.cifar_vgg", "--dataset=pictures", "--data_dir=data"]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert "data.payload.evil.Feature" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
