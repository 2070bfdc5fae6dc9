"""`jaxdl diff` names the step, the layer and the pass at which two runs part."""

import dataclasses
import os
import random
import re
import shutil
import sys
from pathlib import Path

import pytest

import jaxdl
from experiments import iris_mlp
from experiments.benchmarks import fault_campaign
from experiments.benchmarks.planted_faults import Here, changed, compared, flip
from jaxdl import cli
from jaxdl.__main__ import run as command
from jaxdl.errors import UserError
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.tools import diff, diff_side
from jaxdl.tools.diff_process import Place

CONFIG = iris_mlp.Config(num_steps=24, log_every=8, eval_every=8, checkpoint_every=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diff") / "run"
    iris_mlp.run(dataclasses.replace(CONFIG, workdir=str(folder)))
    return folder


def side(name, folder, build=None):
    return Here(name, folder, iris_mlp, build)


def other(folder, **changes):
    iris_mlp.run(dataclasses.replace(CONFIG, workdir=str(folder), **changes))
    return folder


def test_equal_runs_are_equal(run, tmp_path):
    text = compared(side("A", run), side("B", other(tmp_path / "again")), is_same=False)
    assert text == (
        "config: the same\ndata: the same\nenvironment: the same\n"
        "states: equal at every common checkpoint, up to step 24\n"
    )


@pytest.mark.parametrize(
    ("kind", "first", "expected"),
    [
        ("forward", 0, "/Dense_1 (dot_general, forward)"),
        ("forward", 23, "/Dense_1 (dot_general, forward)"),
        ("backward", 13, "/Dense_1 ("),
        ("update", 7, "params/Dense_1/bias: 1 of 1 numbers differ"),
        ("bit", 7, "params/Dense_1/bias: 1 of 1 numbers differ"),
    ],
)
def test_changed_code_is_found_at_its_step_and_layer(run, kind, first, expected):
    place = "params/Dense_1/bias" if kind in ("update", "bit") else "Dense_1"
    b = side("B", run, changed(iris_mlp.build, kind, place, first))
    comparison = compared(side("A", run), b, is_same=True)
    parted = int(comparison.partition("equal up to step ")[2].partition(",")[0])
    if parted < first:  # XLA rounds a changed program otherwise
        assert fault_campaign.parts_after(side("A", run), b, parted)
    else:
        assert parted == first
    assert "different after the next one" in comparison
    assert expected in comparison
    assert ", backward)" in comparison or kind != "backward"
    replays = int(comparison.partition("(replays: ")[2].partition(")")[0])
    assert replays <= 7  # log2(24) + 2


def test_a_flipped_bit_is_found_in_its_array(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    step = Checkpoints(run / "checkpoints").steps()[-1]
    name = flip(copy, step, random.Random(3))
    text = compared(side("A", run), side("B", copy), is_same=False)
    assert (
        f"B: its checkpoint of step {step} is not what its replay gives:\n  {name}: 1 of " in text
    )


def test_another_rate_differs_at_the_first_update(run, tmp_path):
    text = compared(
        side("A", run), side("B", other(tmp_path / "b", learning_rate=0.2)), is_same=False
    )
    assert text.startswith("config: learning_rate 0.1 (A) and 0.2 (B)\n")
    assert "equal up to step 0, different after the next one" in text
    assert "after the gradient" in text


def test_another_seed_differs_from_the_beginning(run, tmp_path):
    text = compared(side("A", run), side("B", other(tmp_path / "b", seed=1)), is_same=False)
    assert "\ndata: the same\n" in text  # the seed splits them, and does not change them
    assert "states: different from the beginning" in text
    assert "params/Dense_0/kernel" in text


def test_processes_answer_as_this_one_does(run, tmp_path, capsys):
    b = other(tmp_path / "b", learning_rate=0.2)
    here = compared(side("A", run), side("B", b), is_same=False)
    with pytest.raises(SystemExit) as ended:
        command(["diff", str(run), str(b)])
    assert ended.value.code == 1
    assert capsys.readouterr().out == here


def test_a_process_that_cannot_open_its_run_says_why(run, tmp_path):
    with pytest.raises(UserError, match=r"B: .* is not a folder"):
        diff.diff(Place(run), Place(tmp_path / "none"))
    with pytest.raises(UserError, match="name a second run, or give --tree or --python"):
        command(["diff", str(run)])
    with pytest.raises(UserError, match="no_such_python cannot be started"):
        command(["diff", str(run), "--python=no_such_python"])


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["OTHER", "--dtype=float64"], "--dtype compares one run with itself: leave the second"),
        (["--dtype=float64", "--tree=x"], "--dtype compares one run with itself: leave the second"),
        (["--dtype=float64", "--python=x"], "--dtype compares one run with itself: leave the seco"),
        (["OTHER", "--step=3"], "--step is for --dtype=float64: the step of two runs is found by"),
        (["--dtype=float64", "--step=24"], "--step=24: the run has the steps 0 to 23: name one"),
        (["--dtype=float32"], "argument --dtype: invalid choice: 'float32'"),
    ],
)
def test_refusals_of_a_type_and_a_step(run, flags, line, capsys):
    words = ["diff", str(run), *(str(run) if flag == "OTHER" else flag for flag in flags)]
    assert cli.guard(lambda: command(words)) == 2
    out, err = capsys.readouterr()
    assert f"error: {line}" in err.splitlines()[-1]
    assert not out


def test_a_run_that_lost_its_first_weights_is_not_repeated_from_others(run, tmp_path):
    """Its initial state would silently be another one."""
    folder = other(tmp_path / "tuned", init_from=str(run))
    assert 0 not in side("B", folder).ask("about")["steps"]
    with pytest.raises(UserError, match="began with the weights of --init_from"):
        side("B", folder).ask("begin", step=0)


def test_arrays_that_one_side_lacks_are_counted_and_named(run, tmp_path):
    b = other(tmp_path / "b", optimizer="adam", ema_decay=0.9)
    text = compared(side("A", run), side("B", b), is_same=False)
    assert text.startswith("config: optimizer momentum (A) and adam (B)")
    found = re.search(r"initial state: (\d+) of (\d+) arrays differ\n", text)
    assert int(found[1]) < int(found[2])
    assert ": only in B\n" in text


def test_no_code_of_the_current_folder_is_executed(run, tmp_path, monkeypatch, capfd):
    """It may be a stranger's run folder; an own folder of modules is named by PYTHONPATH."""
    shutil.copytree(run, tmp_path / "run")
    for name in ("numpy", "jax", "experiments", "json", "sitecustomize"):
        (tmp_path / "run" / f"{name}.py").write_text("open('executed', 'w')", encoding="utf-8")
    (tmp_path / "own").mkdir()
    marker = "import builtins, pathlib; pathlib.Path(__file__).with_name('used').touch()"
    (tmp_path / "own" / "sitecustomize.py").write_text(marker, encoding="utf-8")
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((path, str(tmp_path / "own"), "")))
    monkeypatch.chdir(tmp_path / "run")
    command(["diff", ".", "--python", sys.executable])
    assert "states: equal up to step 24" in capfd.readouterr().out
    assert not (tmp_path / "run" / "executed").exists()
    assert (tmp_path / "own" / "used").exists()


@pytest.mark.parametrize("kind", ["none", "file", "empty", "without the experiment"])
def test_a_tree_that_lacks_the_project_is_refused(run, tmp_path, kind):
    """Else another checkout would open the run, and nothing would differ."""
    tree = tmp_path / "tree"
    line = r"--tree=\S* has no jaxdl/__init__.py: name the folder of a checkout"
    if kind == "file":
        tree.touch()
    elif kind != "none":
        tree.mkdir()
    if kind == "without the experiment":
        shutil.copytree(Path(jaxdl.__file__).parent, tree / "jaxdl")
        line = r"B: experiments.iris_mlp is not in --tree=\S*, but in \S*: put it there"
    with pytest.raises(UserError, match=line):
        diff.diff(Place(run), Place(run, tree=str(tree)))


def test_a_damaged_checkpoint_is_left_out(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    checkpoints = copy / "checkpoints"
    file = max(
        (checkpoints / "24" / "state").rglob("*"), key=lambda f: f.stat().st_size * f.is_file()
    )
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    text = compared(side("A", run), side("B", copy), is_same=False)
    assert "B: its checkpoint of step 24 is damaged and left out\n" in text
    assert text.endswith("states: equal at every common checkpoint, up to step 16\n")


def test_a_checkpoint_that_a_run_deletes_meanwhile_is_not_called_damaged(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    b = side("B", copy)
    shutil.rmtree(copy / "checkpoints" / "24")
    with pytest.raises(UserError, match="its checkpoint of step 24 was deleted meanwhile"):
        b.ask("stored", step=24)


def test_an_environment_without_packages_is_named(run, tmp_path):
    with pytest.raises(UserError, match=r"ended \(status 0\): /bin/true must be a Python that has"):
        diff.diff(Place(run), Place(run, python="/bin/true"))


def test_errors_of_a_side_are_one_line_without_the_names_of_classes():
    class OtherUserError(UserError):
        pass

    assert diff_side.message(OtherUserError("a: b")) == "a: b"
    assert diff_side.message(ImportError("no x")).startswith("no x: its environment lacks a")
    assert diff_side.message(ValueError("x")) == "ValueError: x"


def test_a_campaign_of_an_unknown_experiment_is_refused(tmp_path):
    folder = tmp_path / "faults"
    with pytest.raises(UserError, match="--only=iris: no 'iris': choose from iris_mlp,"):
        fault_campaign.run(fault_campaign.Config(only="iris", workdir=str(folder)))
    assert not folder.exists()
