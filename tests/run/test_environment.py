"""The description of a run's environment, also by a stranger."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdl.run import environment

CPU = """processor\t: 0
model name\t: Some CPU
flags\t\t: fpu sse4_2 avx avx2
"""


@pytest.mark.parametrize(
    ("text", "isa"),
    [
        (CPU, "avx2"),
        (CPU.replace("avx2", "avx2 avx512f"), "avx512f"),
        ("processor: 0\nFeatures\t: fp asimd\n", "asimd"),
        ("", platform.machine()),
    ],
)
def test_the_widest_vector_instructions(text, isa, monkeypatch):
    monkeypatch.setattr("pathlib.Path.read_text", lambda *_, **__: text)
    assert environment._vector_instructions() == isa


def test_facts_are_texts_of_all_that_may_change_bits():
    described = environment.describe() | {"git": {"commit": "c0ffee", "dirty": True}}
    described["convolutions"] = "oneDNN 0.1"
    facts = environment.facts(described)
    assert facts["convolutions"] == "oneDNN 0.1"
    assert environment.facts({"git": None}) == {"commit": "no commit"}
    assert {*environment.NUMERIC, "python", "platform", "isa", "hardware"} <= facts.keys()
    assert facts["commit"] == "c0ffee with changed files"
    assert facts["jax"] == described["packages"]["jax"]
    assert all(isinstance(value, str) for value in facts.values())


@pytest.mark.parametrize(
    "described",
    [
        {},
        {"packages": 3, "jax": [], "git": "x"},
        {"backend": "cpu", "processor": 3, "cpus": {}},
        {"backend": "tpu", "devices": []},
        {"backend": "gpu", "devices": {"a": 1}},
    ],
)
def test_facts_of_what_is_no_description(described):
    assert environment.facts(described) == {}


def repository(folder, **texts):
    """Makes a git repository with texts in files; returns its commit."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", folder.name]):
        subprocess.run([*git, *words], check=True)
    found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, encoding="utf-8")
    return found.stdout.strip()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An unrelated repository as the current folder, also by git's own variable."""
    commit = repository(tmp_path / "elsewhere", a="a")
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere/.git"))
    return commit


def test_the_commit_is_that_of_the_file_and_not_of_the_current_folder(tmp_path, elsewhere):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GIT_DIR")
        commit = repository(tmp_path / "mine", **{"mine.py": "", ".gitignore": ""})
    file = tmp_path / "mine/mine.py"
    assert environment.git(file) == {"commit": commit, "dirty": False}
    (tmp_path / "link.py").symlink_to(file)
    assert environment.git(tmp_path / "link.py") == {"commit": commit, "dirty": False}
    (tmp_path / "mine/other.py").write_text("", encoding="utf-8")
    assert environment.git(file) == {"commit": commit, "dirty": True}
    assert environment.git(file, apart_from="other.py")["dirty"] is False
    (tmp_path / "mine/.gitignore").write_text("*.py\n", encoding="utf-8")
    assert environment.git(tmp_path / "mine/other.py") is None  # such as an installed package
    assert environment.git(file)["commit"] == commit != elsewhere


def test_a_file_in_no_repository_has_no_commit(tmp_path, elsewhere):
    (tmp_path / "own.py").write_text("", encoding="utf-8")
    found = environment.commits(tmp_path / "own.py")
    assert found["git"] is None
    assert environment.facts(found)["commit"] == "no commit"
    assert environment.commits(None)["git"] is None


def test_jaxdl_of_another_repository_is_named(tmp_path, monkeypatch):
    commits = {"mine.py": {"commit": "a", "dirty": False}}
    own = {"commit": "b", "dirty": True}
    monkeypatch.setattr(environment, "git", lambda file: commits.get(file.name, own))
    found = environment.commits(tmp_path / "mine.py")
    assert found == {"git": commits["mine.py"], "jaxdl_git": own}
    assert environment.facts(found) == {"commit": "a", "jaxdl commit": "b with changed files"}
    assert environment.commits(tmp_path / "jaxdl.py") == {"git": own}


def test_an_experiment_of_a_users_own_has_its_own_commit(tmp_path):
    repository(tmp_path / "elsewhere", a="a")
    root = Path(environment.__file__).parents[2]
    text = (root / "experiments/iris_mlp.py").read_text(encoding="utf-8")
    commit = repository(tmp_path / "mine", **{"own_iris.py": text})
    path = os.pathsep.join((str(root), str(tmp_path / "mine")))
    subprocess.run(
        [sys.executable, "-m", "own_iris", "--workdir=../run", "--num_steps=2", "--trackers="],
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
    )
    about = json.loads((tmp_path / "run/environment.json").read_text(encoding="utf-8"))
    assert about["git"] == {"commit": commit, "dirty": False}
    assert about.get("jaxdl_git") == environment.git(Path(environment.__file__))
