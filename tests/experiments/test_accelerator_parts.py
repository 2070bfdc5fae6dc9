"""The parts of the measurement of an accelerator: what they measure, and what is published."""

import dataclasses
import itertools
import json
import multiprocessing
import os
import pkgutil
import sys
import types

import pytest

import experiments
from experiments import iris_mlp
from experiments.benchmarks import beside_torch, cases, pair, performance
from experiments.benchmarks.accelerator import (
    checks,
    publish,
    report,
    runs,
    short,
    speedrun,
    steps,
)
from jaxdl.errors import TrainingError, UserError
from jaxdl.flags import parse_flags
from tests import fake_side
from tests.told import lines, of

SIDE = {"parameters": 7, "backend": "gpu", "tf32": True, "memory_bytes": 2 * 10**9}
OURS = SIDE | {"hardware": "1 x Z80", "cores": 2, "flops": 10**9, "versions": {"jax": "0.1"}}
THEIRS = SIDE | {"versions": {"torch": "2.0", "python": "3"}}


@pytest.fixture
def card(tmp_path, monkeypatch):
    """A card of 4 GFLOP/s, on which jaxdl takes half a second and PyTorch two."""
    said = {"jaxdl": dict(OURS), "torch": dict(THEIRS)}

    def fake(side, spec, python, module="side"):
        if side == "torch" and python == "/none":
            raise UserError("/none has no PyTorch")
        seconds = 0.5 if side == "jaxdl" else 2.0
        return fake_side.command(side, tmp_path / "log", seconds, **said[side])

    monkeypatch.setattr(beside_torch, "command", fake)
    monkeypatch.setattr(pair, "PAUSE", 0)
    peaks = {"bfloat16": 4e9, "float32": 4e9, "copy": 1e9}
    made = fake_side.command("ceilings", tmp_path / "log", peaks=peaks, entries=[])
    monkeypatch.setattr(steps, "ceilings_command", lambda spec: made)
    return said


@pytest.fixture
def commit(monkeypatch):
    """A commit of the code that is here."""
    known = {"commit": "c0ffee", "source": performance.source_digest()}
    monkeypatch.setattr(performance, "committed", lambda name: known | {"name": name})
    return "main"


def test_steps_beside_pytorch_are_published_with_speed_share_and_memory(
    card, tmp_path, commit, monkeypatch
):
    steps.main(of(tmp_path, only="steps/ceilings,steps/lenet5,steps/lstm-256-bf"))
    origin = {"name": "origin", **performance.measured_from()}
    report.append(tmp_path / "results.jsonl", origin)
    for name, state in (("runs/a", "done"), ("runs/b", "failed"), ("runs/c", "skipped")):
        report.append(tmp_path / "results.jsonl", {"name": name, "state": state, "text": ""})
    kept = tmp_path / "kept"
    kept.mkdir()
    publish.add(tmp_path / "results.jsonl", kept, commit)
    (path,) = kept.iterdir()
    assert path.name == "1-x-z80.json"
    first = json.loads(path.read_text(encoding="utf-8"))["cases"][0]
    assert (first["commit"], first["date"]) == ("c0ffee", origin["date"])
    assert first["command"].endswith("accelerator --only=steps/lstm-256-bfloat16")
    rows = performance.table(kept).splitlines()
    assert (
        "| `lenet5`, a step of 128 images, TensorFloat-32 | 500 ms (256 images/s, 50 % of peak, "
        "kernels 250 ms, 2.00 GB) | PyTorch 2 s (64 images/s, 12 % of peak, kernels 250 ms, "
        "2.00 GB) | 0.25 (0.25 to 0.25) |"
    ) in "\n".join(rows)
    assert any("a step of 256 x 128 tokens, bfloat16 | 500 ms (65,536 tokens/s" in r for r in rows)
    assert "| does everything run | 1 | b | c | 1 x Z80 |" in rows
    report.append(tmp_path / "results.jsonl", {"name": "runs/b", "state": "done", "text": ""})
    report.append(tmp_path / "results.jsonl", {"name": "runs/a", "state": "stopped", "text": ""})
    publish.add(tmp_path / "results.jsonl", kept, commit)
    assert "| does everything run | 2 | none | c | 1 x Z80 |" in performance.table(kept)
    # What another commit's measurement did not decide stays that of this one.
    monkeypatch.setattr(
        performance, "committed", lambda name: {"commit": "bead", "source": origin["source"]}
    )
    later = tmp_path / "later"
    later.mkdir()
    report.append(later / "results.jsonl", origin)
    of_z80 = {"state": "done", "text": "", "hardware": "1 x Z80"}  # checks alone
    report.append(later / "results.jsonl", {"name": "runs/c", **of_z80})
    assert publish.add(later, kept, commit) == 1
    checks = json.loads(path.read_text(encoding="utf-8"))["checks"][0]
    assert checks["commits"] == {"a": "c0ffee", "b": "c0ffee", "c": "bead"}


def test_several_cases_start_at_once(card, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2 * steps.CORES)
    monkeypatch.setattr(steps, "LIMIT", 5)
    fake = beside_torch.command

    def hangs(side, spec, python, module="side"):
        if side == "torch" and spec and json.loads(spec)["model"] == "vit":
            return [sys.executable, "-c", "input()"]
        return fake(side, spec, python)

    monkeypatch.setattr(beside_torch, "command", hangs)
    steps.main(of(tmp_path, only="steps/vit-512-bf,steps/lstm-256-bf"))
    found = lines(tmp_path)
    assert found["steps/vit-512-bfloat16"]["state"] == "failed"
    assert "the torch side was not ready after 5 s" in found["steps/vit-512-bfloat16"]["text"]
    assert found["steps/lstm-256-bfloat16"]["state"] == "done"
    steps.main(of(tmp_path, left=0, only="steps/vgg16-512-bf"))
    assert lines(tmp_path)["steps/vgg16-512-bfloat16"]["text"] == report.NO_TIME


def test_steps_without_pytorch_or_of_another_precision(card, tmp_path):
    steps.main(of(tmp_path, only="steps/vit-512-bf", torch_python="/none"))
    found = lines(tmp_path)
    assert found["steps/torch"]["text"] == "jaxdl is timed alone: /none has no PyTorch"
    ((kind, entry),) = found["steps/vit-512-bfloat16"]["entries"]
    assert (kind, entry["unit"], entry["value"]["median"]) == ("costs", "s", 0.5)
    card["torch"]["tf32"] = False
    steps.main(of(tmp_path, only="steps/vgg16-512-float32"))
    failed = lines(tmp_path)["steps/vgg16-512-float32"]
    assert failed["state"] == "failed"
    assert "tf32 True of jaxdl, False of torch" in failed["text"]


def test_a_commit_is_named_by_what_git_knows():
    head = performance.committed("HEAD")
    assert len(head["commit"]) == 40
    assert performance.committed(head["commit"][:10]) == head
    for name in ("none", "--output=x", "HEAD:README.md"):
        with pytest.raises(UserError, match="no commit of this repository"):
            performance.committed(name)


def test_what_is_not_published(tmp_path, commit):
    path = tmp_path / "results.jsonl"
    with pytest.raises(UserError, match="has no results"):
        publish.add(path, tmp_path)
    here = {"name": "origin", **performance.measured_from()}
    for origin, more, error in (
        (here | {"source": "other"}, {}, "other code than that of --commit=main"),
        (here, {"rehearsal": True}, "of a rehearsal"),
    ):
        path.write_text("", encoding="utf-8")
        report.append(path, origin)
        report.append(path, {"name": "loop/1 ms", "state": "done", "text": "", **more})
        with pytest.raises(UserError, match=error):
            publish.add(path, tmp_path, commit)


def test_a_publication_of_nothing_is_refused(tmp_path, commit):
    report.append(tmp_path / "results.jsonl", {"name": "origin", **performance.measured_from()})
    with pytest.raises(UserError, match="nothing is published"):
        publish.add(tmp_path, tmp_path / "kept", commit)
    with pytest.raises(UserError, match="--add is missing"):
        publish.run(parse_flags(publish.Config, []))


def test_the_digest_is_of_all_code(tmp_path):
    (tmp_path / "jaxdl" / "in").mkdir(parents=True)
    digests = set()
    for name, text in (("a.py", "1"), ("a.py", "2"), ("in/b.py", ""), ("in/c.txt", "no code")):
        (tmp_path / "jaxdl" / name).write_text(text, encoding="utf-8")
        digests.add(performance.source_digest(tmp_path))
    assert len(digests) == 3


def test_every_experiment_has_a_short_run_and_some_a_half_precise_one():
    names = {m.name for m in pkgutil.iter_modules(experiments.__path__) if not m.ispkg}
    assert set(short.SHORT) == names
    made = [name for name, _ in runs.work()]
    assert {f"runs/{name}" for name in names} < set(made)
    assert len(set(made)) == len(made)
    assert set(runs.HALF) < names


def crash(place):
    """A measurement that ends its own process."""
    os.abort()


def test_a_run_that_crashes_or_has_no_time_is_reported(tmp_path):
    context = multiprocessing.get_context("forkserver")
    runs.supervise(of(tmp_path), context, "runs/crash", crash)
    runs.supervise(of(tmp_path, left=0), context, "runs/late", crash)
    runs.supervise(of(tmp_path, only="loop"), context, "runs/other", crash)
    found = lines(tmp_path)
    assert list(found) == ["runs/crash", "runs/late"]
    assert found["runs/crash"]["text"] == "ended by SIGABRT"
    assert found["runs/late"]["state"] == report.SKIPPED


def test_losses_that_differ_are_no_success():
    one = SUMMARY
    assert "other bits" in runs.same_loss(one, one | {"test/loss": 1.0005, "state_sha256": "b"})
    for other in ({"test/loss": 1.01}, {"step": 3}, {"test/loss": float("nan")}):
        with pytest.raises(TrainingError):
            runs.same_loss(one, one | other)


SUMMARY = {"step": 2, "test/loss": 1.0, "state_sha256": "a"}


def test_two_runs_that_end_in_other_bits_are_no_success(tmp_path, monkeypatch):
    bits = iter("aabc")
    monkeypatch.setattr(
        runs.Place, "train", lambda *_, **__: SUMMARY | {"state_sha256": next(bits)}
    )
    place = runs.Place(tmp_path, "")
    assert runs.deterministic("", place) == "equal state_sha256 a"
    with pytest.raises(TrainingError, match="two runs ended in b and c"):
        runs.deterministic("", place)


@pytest.mark.parametrize(
    ("second", "result"),
    [
        ("save({'step': 2, 'test/loss': 1.0, 'state_sha256': 'b'})", "other bits"),
        ("sys.exit('error: the card is taken')", "refused: error: the card is taken"),
        ("save({'step': 2, 'test/loss': 3.0, 'state_sha256': 'b'})", None),
        ("sys.exit('Traceback: Segmentation fault')", None),
        ("os.abort()", None),
    ],
)
def test_two_at_once_are_right_or_refused_with_a_line(second, result, tmp_path, monkeypatch):
    def command(name, code):
        save = "save = lambda s: (p.mkdir(), (p / 'summary.json').write_text(json.dumps(s)));"
        given = f"import json, os, sys, pathlib; p = pathlib.Path({str(tmp_path / name)!r});"
        return [sys.executable, "-c", f"{given} {save} {code}"]

    monkeypatch.setattr(runs.Place, "train", lambda *_, **__: SUMMARY)
    both = [command("a", f"save({SUMMARY})"), command("b", second)]
    if result:
        assert result in runs.together(runs.Place(tmp_path, ""), both)
    else:
        with pytest.raises(TrainingError, match=r"test/loss 3|statuses"):
            runs.together(runs.Place(tmp_path, ""), both)


@pytest.mark.parametrize("name", sorted(set(checks.CHECKS) - {"jit and pmap"}))
def test_numerics(name):
    assert checks.CHECKS[name]()


def test_one_device_under_jit_and_pmap():
    """Checks that compile in a second; `test_devices` has convolutions, on eight devices."""
    assert "differ by" in checks.one_device(iris_mlp)
    with pytest.raises(TrainingError, match="under jit and pmap differ"):
        checks.one_device(types.SimpleNamespace(**vars(iris_mlp) | {"build": other_for_pmap}))


def other_for_pmap(config, data):
    """A task that pmap would train otherwise."""
    rate = config.learning_rate * (2 if config.parallel == "pmap" else 1)
    return iris_mlp.build(dataclasses.replace(config, learning_rate=rate), data)


def test_errors_beyond_a_limit_are_no_success():
    exact = checks.np.ones(4)
    assert "off by 1.0e-06" in checks.held("it", "float32", {"x": (exact * (1 + 1e-6), exact)})
    for wrong in (exact * 1.001, exact * float("nan")):
        with pytest.raises(TrainingError, match="x is off by"):
            checks.held("it", "float32", {"y": (exact, exact), "x": (wrong, exact)})


def test_both_sides_of_the_race_are_told_the_same(tmp_path):
    config = parse_flags(speedrun.Config, speedrun.flags(rehearse=True))
    told = json.loads(json.dumps(speedrun.write(config, tmp_path)))
    assert (told["epochs"], told["width"], told["dtype"]) == (1, 0.04, "bfloat16")
    assert told["mirrored"] is False  # digits
    with checks.np.load(told["data"], allow_pickle=False) as arrays:
        assert arrays["train_image"].dtype == "uint8"
        assert len(arrays["train_image"]) == len(arrays["train_label"]) == 1294


def test_the_race_is_written_as_it_goes(tmp_path, monkeypatch):
    answers = {"jaxdl": 1.0, "torch": 2.0}

    class Side:
        def __init__(self, name):
            self.name, self.report = name, {"hardware": "Z80", "versions": {"jax": name}}
            self.turns = 0

        def ask(self, kind):
            self.turns += 1
            return {"seconds": answers[self.name], "accuracy": 0.9 + self.turns / 1000}

    told = of(tmp_path)
    left = itertools.count(60, -1)  # every look at the clock is a second after the one before
    told.left = lambda: next(left)
    text, fields = speedrun.trainings(told, [Side("jaxdl"), Side("torch")], speedrun.Config())
    assert "jaxdl 1 s to 0.9" in text
    assert "PyTorch 2 s to 0.9" in text
    counts = [line["entries"][0][1]["times"] for line in report.read(tmp_path / "results.jsonl")]
    assert counts == [2, 4, 8, 16]
    seconds, accuracy, *theirs = [entry for _, entry in fields["entries"]]
    assert (seconds["value"]["median"], seconds["unit"]) == (1.0, "s")
    assert seconds["times"] > 16
    assert theirs[0]["case"].startswith("PyTorch, training")
    assert 0.9 < accuracy["value"]["median"] < 1
    told.left = lambda: 60
    monkeypatch.setattr(Side, "ask", lambda *_: {"seconds": 1.0, "accuracy": 0.1})
    with pytest.raises(UserError, match="has learned nothing"):
        speedrun.trainings(told, [Side("torch"), Side("jaxdl")], speedrun.Config())


def test_cases_of_an_accelerator():
    names = [case.name for case in cases.ACCELERATED]
    assert len(set(names)) == len(names) == 14
    models = {"vgg16", "resnet18", "resnet50", "vit", "lstm", "transformer", "lenet5"}
    for dtype in ("bfloat16", "float32"):
        assert {case.model for case in cases.ACCELERATED if case.dtype == dtype} == models
