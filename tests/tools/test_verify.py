"""The proof, in short: a small experiment killed at every moment; and no difference is missed."""

import json
import random
import shutil

import pytest

from jaxdl.__main__ import run as command
from jaxdl.errors import TrainingError, UserError
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.tools import interrupted, verify
from jaxdl.tools.interrupted import Interruption, Outcome, Whole

FLAGS = ["--num_steps=1500", "--eval_every=75", "--checkpoint_every=50", "--log_every=25"]


@pytest.fixture(scope="module")
def proved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify") / "runs"
    flags = ["--kills=7", "--terms=1", "--faults=1", f"--workdir={folder}"]
    command(["verify", "tests.small", *flags, "--", *FLAGS])
    return folder


def test_a_kill_at_every_moment_changes_no_bit(proved):
    summaries = [
        json.loads((proved / n / "summary.json").read_text(encoding="utf-8")) for n in verify.RUNS
    ]
    assert summaries[0]["state_sha256"] == summaries[1]["state_sha256"]
    assert summaries[0]["best_step"] == summaries[1]["best_step"]


def outcome(kind="kill", status=-9, began=0, seen=5, durable=True):
    return Outcome(Interruption(kind, "step", 0, 0.5), began, seen, status, durable)


def compared(folder, capsys, outcomes=(), last=0):
    whole = Whole(*interrupted.results(folder / "whole"), 10.0, 5.0, 10)
    found = interrupted.compare(folder, whole, list(outcomes), last, 20.0)
    return found, capsys.readouterr().out


def test_the_verdict(proved, capsys):
    problems, out = compared(proved, capsys, [outcome(seen=25)], last=10)
    assert problems == []
    assert "1.50 of a save interval" in out
    assert "goodput 0.50" in out
    assert "0 lost, 0 added" in out


@pytest.mark.parametrize(
    "damage", ["state", "line", "double", "best", "summary", "missing", "picture", "file"]
)
def test_a_difference_is_found(damage, proved, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(proved, copy)
    path = copy / "interrupted"
    lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    if damage == "state":
        summary["state_sha256"] = "0" * 64
    elif damage == "line":
        del lines[3]
    elif damage == "double":
        lines.insert(3, lines[3])
    elif damage == "best":
        best = path / "checkpoints" / str(summary["best_step"])
        shutil.rmtree(best)
        other = Checkpoints(path / "checkpoints").steps()[-1]
        shutil.copytree(path / "checkpoints" / str(other), best)
    elif damage == "summary":
        summary["test/accuracy"] += 1e-9
    elif damage == "picture":
        (path / "plots" / "curves.png").rename(path / "plots" / "old.png")
    elif damage == "file":
        (path / "flags.txt").write_text("--seed=3\n", encoding="utf-8")
    (path / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    if damage == "missing":
        (path / "summary.json").unlink()
    assert compared(copy, capsys)[0]


@pytest.mark.parametrize(
    "bad",
    [outcome(status=0), outcome(status=1), outcome("term"), outcome("term", 143, durable=False)],
)
def test_an_interruption_that_is_not_survived_is_found(bad, proved, capsys):
    assert compared(proved, capsys, [outcome("term", 143), bad])[0]


def test_work_lost_is_counted_over_starts_that_came_to_nothing():
    outcomes = [outcome(seen=25), outcome(began=None, seen=25), outcome("fault", began=20, seen=40)]
    assert interrupted.lost_work([*outcomes, outcome(began=10, seen=30)], last=30) == [0, 5, 5]


def test_the_plan_is_seeded_and_has_every_moment():
    whole = Whole([{}], {"step": 100}, "", {}, 1.0, 1.0, 10)
    plans = [
        verify._plan({"kill": 20, "term": 5, "fault": 3}, whole, random.Random(n))
        for n in (0, 0, 1)
    ]
    assert plans[0] == plans[1] != plans[2]
    assert {p.moment for p in plans[0]} == set(verify.MOMENTS)
    waiting = [p.step for p in plans[0] if p.moment != "start"]
    assert waiting == sorted(waiting)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--", "--workdir=x"], "leave them out"),
        (["--", "--resume=never"], "leave them out"),
        (["--kills=-1"], "not a whole number"),
        (["--kills=x"], "kills"),
        (["--", "--nonsense=1"], "nonsense"),
        (["--workdir=."], "not empty"),
    ],
)
def test_mistakes(arguments, words):
    with pytest.raises(UserError, match=words):
        command(["verify", "experiments.cifar_vgg", *arguments])


def test_runs_that_differ_fail(monkeypatch, tmp_path):
    whole = Whole([], {"step": 1}, "", {}, 1.0, 1.0, 1)
    monkeypatch.setattr(verify, "_run_whole", lambda *_: whole)
    monkeypatch.setattr(verify, "compare", lambda *_: ["state_sha256 differs"])
    monkeypatch.setattr(verify.subprocess, "Popen", lambda *_, **__: Ended())
    with pytest.raises(TrainingError, match="state_sha256 differs"):
        verify.verify("x", [], tmp_path, dict.fromkeys(verify.KINDS, 0), 0)


class Ended:
    returncode = 0

    def wait(self):
        return 0
