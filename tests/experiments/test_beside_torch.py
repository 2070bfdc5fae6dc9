"""The cases, the files of figures and the tables of docs/performance.md, with fakes for sides."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import beside_torch, cases, performance
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags
from jaxdl.run import environment
from tests import fake_side


def test_cases():
    assert cases.select("") == list(cases.CASES)
    assert {case.model for case in cases.select("lenet5,resnet18-64")} == {"lenet5", "resnet18"}
    (one, two, plain) = cases.select("vgg16", batch_size=8, steps=3)
    assert [case.name for case in (one, two, plain)] == [
        "vgg16-8-float32-step-torch", "vgg16-8-bfloat16-step-torch", "vgg16-8-float32-step-flax",
    ]  # fmt: skip
    assert {case.steps for case in (one, two, plain)} == {3}
    assert cases.select("lenet5-128-float32-epoch", steps=3)[0].steps == 0
    with pytest.raises(UserError, match="--only=alexnet: no case begins with that"):
        cases.select("vgg16,alexnet")


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """beside_torch, as if from a commit, with fakes for sides; set what they say about it."""
    facts = {"parameters": 7, "backend": "cpu", "hardware": "2 cores, Z80 (x)", "cores": 2}
    said = {
        "jaxdl": facts | {"versions": {"jax": "0.1", "python": "3"}},
        "torch": facts | {"versions": {"torch": "2.0", "python": "3"}},
        "flax": facts | {"versions": {"flax": "1.0", "jax": "0.1"}},
    }

    def command(side, spec, python):
        assert Path(json.loads(spec)["data"]).stat().st_size
        seconds = 0.5 if side == "jaxdl" else 2.0
        return fake_side.command(side, tmp_path / "log", seconds, **said[side])

    monkeypatch.setattr(beside_torch, "command", command)
    monkeypatch.setattr(environment, "git", lambda *_, **__: {"commit": "c0ffee", "dirty": False})
    return said


def measured(tmp_path, *flags):
    return parse_flags(beside_torch.Config, [f"--results={tmp_path / 'kept'}", "--turns=2", *flags])


def test_figures_are_kept_and_become_rows(fakes, tmp_path, capsys):
    config = measured(tmp_path, "--only=vgg16-64-float32", "--torch_python=/somewhere/python")
    found = beside_torch.run(config)
    assert found == {"vgg16-64-float32-step-torch": 0.25, "vgg16-64-float32-step-flax": 0.25}
    line = capsys.readouterr().out.splitlines()[0]
    assert line == (
        "`vgg16`, a step of 64 images, float32: "
        "jaxdl 500 ms, PyTorch 2 s; ratio 0.25 (0.25 to 0.25)"
    )
    (path,) = (tmp_path / "kept").iterdir()
    assert path.name == "2-cores-z80-x.json"
    assert "somewhere" not in path.read_text(encoding="utf-8")
    first, second = json.loads(path.read_text(encoding="utf-8"))["cases"]
    assert first["command"].endswith("--only=vgg16-64-float32-step-torch --turns=2")
    assert (first["commit"], second["beside"]) == ("c0ffee", "flax")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", first["date"])
    beside_torch.run(measured(tmp_path, "--only=vgg16-64-float32-step-torch,lenet5", "--turns=3"))
    kept = {e["case"]: e["turns"] for e in json.loads(path.read_text(encoding="utf-8"))["cases"]}
    assert list(kept.values()) == [3, 2, 3, 3]

    # A figure with oneDNN is a row of its own.
    performance.save(path.parent, first | {"native": "oneDNN 3.2.1, instruction set 0x27"})
    page = tmp_path / "PAGE.md"
    page.write_text(
        f"before\n{performance.PART.begin}\nold\n{performance.PART.end}\nafter\n", encoding="utf-8"
    )
    flags = [f"--results={tmp_path / 'kept'}", f"--page={page}"]
    performance.run(parse_flags(performance.Config, flags))
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("| 2 cores, Z80 (x); jax 0.1, torch 2.0 |") == 3
    assert text.count("| 2 cores, Z80 (x); jax 0.1, torch 2.0, oneDNN 3.2.1 |") == 1
    assert "`lenet5`, an epoch of 60,000 images in batches of 128, float32 | 500 ms |" in text


def test_this_process_leaves_the_memory_of_a_gpu_to_the_sides():
    """JAX takes it when the command line first asks for a device, before `run`."""
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    code = f"""
import os, runpy
from jaxdl import cli
cli.main = lambda *_: print(os.environ.get({name!r}))
runpy.run_module("experiments.benchmarks.beside_torch", run_name="__main__")
"""
    environ = {key: value for key, value in os.environ.items() if key != name}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == "false\n"


def test_an_interpreter_without_pytorch():
    with pytest.raises(UserError, match="/none/python has no PyTorch"):
        beside_torch.command("torch", "{}", "/none/python")


def test_what_cannot_be_compared_or_published(fakes, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "git", lambda *_, **__: {"commit": "c0ffee", "dirty": True})
    config = measured(tmp_path, "--only=resnet18-64-float32")
    beside_torch.run(config)
    with pytest.raises(UserError, match="resnet18-64-float32-step-torch was measured with files"):
        performance.table(tmp_path / "kept")
    for fact, other in (("parameters", 8), ("backend", "gpu")):
        before = fakes["torch"][fact]
        fakes["torch"][fact] = other
        with pytest.raises(UserError, match=f"{fact} {before} of jaxdl, {other} of torch"):
            beside_torch.run(config)
        fakes["torch"][fact] = before


def test_the_page_has_the_table_of_the_files():
    text = Path("docs/performance.md").read_text(encoding="utf-8")
    found = text.split(performance.PART.begin)[1].split(performance.PART.end)[0]
    assert found.strip() == performance.table(Path(performance.KEPT))


def test_costs_stand_in_a_table_of_their_own(tmp_path):
    origin = {"commit": "c0ffee", "dirty": False, "date": "2026-01-01"}
    for values in ([9.0, 9.0], [0.02, 0.03, 0.04]):
        found = performance.save_cost(tmp_path, "a save", values, "s", "python -m it", origin)
    assert found == 0.03
    performance.save_cost(tmp_path, "a step", [1.5, 1.5], "of it", "python -m it", origin)
    lines = performance.table(tmp_path).splitlines()
    assert lines[0].startswith("| figure |")
    assert lines[2].startswith("| a save | 30 ms (25 ms to 35 ms) | `python -m it` | ")
    assert lines[3].startswith("| a step | 1.5 of it (1.5 to 1.5) |")
    assert len(lines) == 4
    performance.save_cost(tmp_path, "late", [1, 1], "s", "x", origin | {"dirty": True})
    with pytest.raises(UserError, match="late was measured with files that are in no commit"):
        performance.table(tmp_path)


def test_no_figures_leave_the_page_as_it_is(tmp_path):
    page = tmp_path / "PAGE.md"
    text = f"{performance.PART.begin}\nold\n{performance.PART.end}\n"
    page.write_text(text, encoding="utf-8")
    flags = [f"--results={tmp_path / 'none'}", f"--page={page}"]
    with pytest.raises(UserError, match="none has no figures"):
        performance.run(parse_flags(performance.Config, flags))
    assert page.read_text(encoding="utf-8") == text


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"--results=.*file/in cannot be created"):
        performance.origin(tmp_path / "file" / "in")
